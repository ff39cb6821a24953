"""vLLM by itself on the Injector's prompts of fresh batches: the speed that `--engine vllm` can at most play with.

    python benchmarks/bare_vllm.py [--model NAME] [--notes 64] [--batches 3] [--tokens 24]

The model without an adapter and no VCF, no retries, no learning: one call of `LLM.generate` a batch, each prompt
answered with so many tokens. The first batch warms up and is left out. Part of `gpu_check.sh`.
"""

from __future__ import annotations

import argparse
import time
from statistics import fmean

from medserl.config import Settings
from medserl.engines.vllm import load_vllm
from medserl.game.prompts import load_prompts
from medserl.rounds.sampler import sample_games


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=Settings().model)
    parser.add_argument("--notes", type=int, default=64)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--eager", action="store_true", help="without CUDA graphs, as where nothing can be compiled")
    options = parser.parse_args()
    if options.batches < 2:
        parser.error("--batches: give 2 or more, of which the first warms up")
    settings = Settings(model=options.model, engine="vllm", adapter="none", vllm_eager=options.eager)
    engine = load_vllm(settings)
    from vllm import SamplingParams

    prompts = load_prompts(settings.prompts, settings.injector_format)
    sampled = SamplingParams(temperature=1.0, max_tokens=options.tokens, ignore_eos=True, detokenize=False)
    seconds = []
    for number in range(options.batches):
        asked = [
            {"prompt_token_ids": list(engine.chat.ids(prompts.injector(game.original, game.mode, game.error_type)))}
            for game in sample_games(options.notes, seed=number)
        ]
        started = time.perf_counter()
        engine.llm.generate(asked, sampled, use_tqdm=False)
        seconds.append(time.perf_counter() - started)
    engine.close()
    each = fmean(seconds[1:])
    tokens = options.notes * options.tokens
    print(
        f"bare vLLM: {tokens / each:,.0f} tokens/s, {each:.2f} s for {options.notes} prompts of {options.tokens} tokens"
    )


if __name__ == "__main__":
    main()
