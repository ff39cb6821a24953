"""The card of a model, README.md, as the Hugging Face hub and its readers know it; `facts` says what is in it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from medserl.config import Settings
from medserl.errors import ConfigError, ModelError
from medserl.evaluation.statistics import share_estimate
from medserl.evaluation.table import escape_markdown
from medserl.evaluation.thresholds import Threshold
from medserl.files import write_private
from medserl.sharing.card_facts import FACTS_FILE, CardFacts, Figure, read_facts, run_facts
from medserl.sharing.evaluated import Evaluation
from medserl.sharing.examples import transformers_example, vllm_example

log = logging.getLogger("medserl")

CARD = "README.md"
ADAPTER_CONFIG, MODEL_CONFIG = "adapter_config.json", "config.json"

TAGS = ("medserl", "clinical-notes", "medical-error-detection", "self-play", "reinforcement-learning")
_DATED = (
    "The base model's chat template prints today's date. MedSeRL gives it 26 July 2024 always; a folder that `medserl "
    "export` wrote has that date in its template."
)
IN_WORDS = {
    "vcf_first_attempt_rate": "edits of the Injector that the VCF accepts at the first attempt",
    "vcf_acceptance_rate": "the same, in all attempts",
    "verdict_parse_rate": "answers that hold a verdict",
    "validation_pairs_ordered": "pairs whose wrong twin is the more suspicious one",
}
"""What a warm-up is measured by."""
CITATION = """\
@software{medserl,
  title = {MedSeRL: medical self-play reinforcement learning},
}
@inproceedings{medec,
  title = {MEDEC: A Benchmark for Medical Error Detection and Correction in Clinical Notes},
  author = {Ben Abacha, Asma and others},
  booktitle = {Findings of the Association for Computational Linguistics: ACL 2025},
  year = {2025},
}
@article{reinforce_pp,
  title = {REINFORCE++},
  author = {Hu, Jian and others},
  journal = {arXiv:2501.03262},
  year = {2025},
}"""


@dataclass(frozen=True)
class Lora:
    """What a card says of an adapter's shape."""

    r: int
    lora_alpha: float
    layers: str


def write_run_card(folder: Path, settings: Settings, rounds: int) -> None:
    """The card of a checkpoint that is being written; none where the engine writes no model (`scripted`).

    Where what it tells cannot be read any more, as a model whose folder has gone, the checkpoint has no card: the log
    says so, and the run goes on.
    """
    if not (folder / ADAPTER_CONFIG).is_file() and not (folder / MODEL_CONFIG).is_file():
        return
    try:
        write_card(folder, run_facts(settings, rounds))
    except (ConfigError, ModelError) as error:
        log.warning("round %d: its checkpoint has no card: %s", rounds, error)
        (folder / CARD).unlink(missing_ok=True)  # PEFT's blank one


def write_card(
    folder: Path, facts: CardFacts, evaluation: Evaluation | None = None, threshold: Threshold | None = None
) -> None:
    """Write README.md, and the facts that it was made from, into the folder of an adapter or a whole model.

    Raises:
        OutputError: they cannot be written.
    """
    write_private(folder / FACTS_FILE, facts.model_dump_json(indent=1) + "\n")
    write_private(folder / CARD, render_card(folder, facts, evaluation, threshold))


def add_figures(
    folder: Path, shares: Mapping[str, float | None], counts: Mapping[str, int], threshold: Threshold | None = None
) -> None:
    """Put what was measured into the card of a folder: shares by name, each of so many notes or pairs, and a threshold.

    Raises:
        OutputError: the card cannot be written.
    """
    facts = read_facts(folder)
    if facts is not None:
        figures = [measured(IN_WORDS.get(name, name), share, counts[name]) for name, share in shares.items()]
        write_card(
            folder, facts.model_copy(update={"figures": tuple(each for each in figures if each)}), None, threshold
        )


def measured(name: str, share: float | None, n: int) -> Figure | None:
    """A share of n with its Wilson interval; None where there is none."""
    if share is None or not n:
        return None
    hits = round(share * n)
    found = share_estimate([True] * hits + [False] * (n - hits))
    assert found.low is not None and found.high is not None
    return Figure(name=name, value=share, low=found.low, high=found.high, n=n)


def render_card(
    folder: Path, facts: CardFacts, evaluation: Evaluation | None = None, threshold: Threshold | None = None
) -> str:
    """The card of the adapter or model in the folder."""
    from huggingface_hub import ModelCard, ModelCardData

    lora = _lora(folder)
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    kind = "A LoRA adapter" if lora else "A language model"
    data = ModelCardData(
        library_name="peft" if lora else "transformers",
        base_model=facts.base.name,
        license=facts.base.licence or "unknown",
        language="en",
        pipeline_tag="text-generation",
        tags=[*(["lora"] if lora else []), *TAGS],
    )
    text = _template().render(
        card_data=data.to_yaml(),
        title=f"MedSeRL on {facts.base.name.rpartition('/')[2]}",
        what=f"{kind} for {escape_markdown(facts.base.name)}.",
        facts=facts,
        lora=lora,
        evaluation=evaluation,
        threshold=threshold,
        cell=escape_markdown,
        percent=_percent,
        fence=_fence(facts),
        dated=_DATED,
        transformers_example=transformers_example(facts, is_adapter=lora is not None, has_tokenizer=has_tokenizer),
        vllm_example=vllm_example(facts, rank=lora.r if lora else None, has_tokenizer=has_tokenizer),
        medserl_example=_medserl_example(facts, is_adapter=lora is not None),
        citation=CITATION,
    )
    return str(ModelCard(text).content)


@cache
def _template() -> Template:
    templates = Environment(  # Markdown: names are escaped by `cell`
        loader=PackageLoader("medserl.sharing", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template("card.md.jinja")


def _lora(folder: Path) -> Lora | None:
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    targets = config.get("target_modules") or []
    names = [targets] if isinstance(targets, str) else sorted({str(name).rpartition(".")[2] for name in targets})
    return Lora(int(config["r"]), config["lora_alpha"], ", ".join(names))


def _fence(facts: CardFacts) -> str:
    """Longer than any row of backticks in the prompts, which may be a person's own."""
    text = f"{facts.prompt.system} {facts.prompt.user} {facts.prompt.answer}"
    return "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])


def _percent(figure: Figure) -> str:
    return f"{100 * figure.value:.0f} % ({100 * figure.low:.0f} to {100 * figure.high:.0f})"


def _medserl_example(facts: CardFacts, *, is_adapter: bool) -> str:
    from medserl.models.embedded import EMBEDDED, EMBEDDED_HUB

    base = EMBEDDED if facts.base.name == EMBEDDED_HUB else facts.base.name
    model = f"--model {base} --adapter ." if is_adapter else "--model . --adapter none"
    return f"medserl predict notes.csv {model} --prompts {facts.prompt.prompt_set}"
