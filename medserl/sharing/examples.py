"""The Python of a card: how to load a model and ask it, without MedSeRL, in the very words that it was trained on."""

from __future__ import annotations

from medserl.sharing.card_facts import NOTE, CardFacts, Prompt

HERE = "path/to/this/folder"
"""What stands in the examples for the folder, or its name on the hub."""

_SENTENCES = (
    "A 54-year-old woman has had fever and cough for three days.",
    "Her blood culture grows Streptococcus pneumoniae.",
    "She is treated with ceftriaxone.",
)


def transformers_example(facts: CardFacts, *, is_adapter: bool, has_tokenizer: bool) -> str:
    """Code for transformers, and PEFT where it is an adapter; it leaves the answer in `answer`."""
    prompt, tokenizer = facts.prompt, "FOLDER" if has_tokenizer else "BASE"
    imports, load = ["from transformers import AutoModelForCausalLM, AutoTokenizer"], []
    if is_adapter:
        imports.insert(0, "from peft import PeftModel")
        load = [
            f"BASE, FOLDER = {facts.base.name!r}, {HERE!r}",
            f"tokenizer = AutoTokenizer.from_pretrained({tokenizer})",
            'base = AutoModelForCausalLM.from_pretrained(BASE, dtype="auto")',
            "model = PeftModel.from_pretrained(base, FOLDER).eval()",
        ]
    else:
        load = [
            f"FOLDER = {HERE!r}",
            "tokenizer = AutoTokenizer.from_pretrained(FOLDER)",
            'model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto").eval()',
        ]
    render = [
        "text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True"
        f"{''.join(f', {name}={on}' for name, on in prompt.switches.items())})",
        'inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(model.device)',
        "output = model.generate(",
        "    **inputs, do_sample=False, repetition_penalty=1.0,",
        f"    max_new_tokens={prompt.max_new_tokens}, "
        f"eos_token_id={list(prompt.stop_ids)}, pad_token_id={prompt.stop_ids[0]},",
        ")",
        'answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)',
        "print(answer)",
    ]
    return "\n".join([*imports, "", *load, "", *_messages(prompt), "", *render])


def vllm_example(facts: CardFacts, *, rank: int | None, has_tokenizer: bool) -> str:
    """Code for vLLM; `rank` is that of the adapter, None for a whole model."""
    prompt = facts.prompt
    imports = ["from vllm import LLM, SamplingParams"]
    if rank is None:
        load, lora = [f"FOLDER = {HERE!r}", 'llm = LLM(FOLDER, generation_config="vllm")'], ""
    else:
        imports.append("from vllm.lora.request import LoRARequest")
        tokenizer = ", tokenizer=FOLDER" if has_tokenizer else ""
        load = [
            f"BASE, FOLDER = {facts.base.name!r}, {HERE!r}",
            f'llm = LLM(BASE{tokenizer}, generation_config="vllm", enable_lora=True, max_lora_rank={vllm_rank(rank)})',
        ]
        lora = ', lora_request=LoRARequest("medserl", 1, FOLDER)'
    switches = f", chat_template_kwargs={prompt.switches}" if prompt.switches else ""
    ask = [
        f"greedy = SamplingParams(temperature=0, max_tokens={prompt.max_new_tokens}, "
        f"stop_token_ids={list(prompt.stop_ids)})",
        f"answer = llm.chat(messages, greedy{lora}{switches})[0].outputs[0].text",
        "print(answer)",
    ]
    return "\n".join([*imports, "", *load, "", *_messages(prompt), "", *ask])


def vllm_rank(rank: int) -> int:
    """The least `max_lora_rank` that vLLM knows and the adapter fits into; its own rank where there is none."""
    from medserl.engines.vllm import LORA_RANKS

    return next((each for each in LORA_RANKS if each >= rank), rank)


def _messages(prompt: Prompt) -> list[str]:
    def content(text: str) -> str:
        return f'[{{"type": "text", "text": {text}}}]' if prompt.in_parts else text

    system = [f'    {{"role": "system", "content": {content(repr(prompt.system))}}},'] if prompt.system else []
    return [
        "sentences = [",
        *(f"    {sentence!r}," for sentence in _SENTENCES),
        "]",
        r'note = "\n".join(f"{i} {sentence}" for i, sentence in enumerate(sentences))',
        "messages = [",
        *system,
        f'    {{"role": "user", "content": {content(f"{prompt.user!r}.replace({NOTE!r}, note)")}}},',
        "]",
    ]
