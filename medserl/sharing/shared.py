"""What is to be shared: a run, one of its checkpoints, or the folder of an adapter; where it lies and what it is."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from medserl.config import Settings
from medserl.errors import ConfigError, ModelError, RunError
from medserl.game.prompts import SHIPPED
from medserl.game.roles import Role
from medserl.models import INJECTOR
from medserl.models.base_names import is_hub_name
from medserl.models.embedded import EMBEDDED, EMBEDDED_HUB
from medserl.models.loading import check_adapter_files, reading
from medserl.runs.checkpoints import STATE_FILE, find_damage
from medserl.runs.runlog import CONFIG, RunFolder, read_settings
from medserl.sharing.card import ADAPTER_CONFIG, MODEL_CONFIG
from medserl.sharing.card_facts import CardFacts, Prompt, base_of, prompt_of, read_facts, run_facts

log = logging.getLogger("medserl")

_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Shared:
    """A trained policy on disk.

    `weights` is the folder of the adapter, or of a whole model. `folder` is where its threshold and evaluation are
    looked for: the checkpoint, or the adapter's own. `settings` name the base model as it is found here.
    """

    weights: Path
    folder: Path
    run: Path | None
    settings: Settings
    facts: CardFacts

    @property
    def is_adapter(self) -> bool:
        return (self.weights / ADAPTER_CONFIG).is_file()


def find_shared(
    given: Path, *, checkpoint: str = "trained", role: Role | None = None, model: str | None = None
) -> Shared:
    """The policy in a run (its newest checkpoint, or the `best`), in a checkpoint, or in the folder of an adapter.

    `role` chooses between the adapters of a policy that has one for each; `model` says where the base model is.

    Raises:
        ConfigError, ModelError, RunError: nothing to share is there, it is damaged, or more must be said.
    """
    folder = _checkpoint(given, checkpoint) if (given / CONFIG).is_file() else given
    if (folder / STATE_FILE).is_file() and (damage := find_damage(folder)):
        raise RunError(f"{folder}: this checkpoint is damaged: {damage}")
    if not (folder / ADAPTER_CONFIG).is_file() and not (folder / MODEL_CONFIG).is_file():
        raise ConfigError(f"{given}: neither a run, nor a checkpoint, nor the folder of an adapter")
    weights = _of_role(folder, role)
    run = folder.absolute().parent.parent if (folder.absolute().parent.parent / CONFIG).is_file() else None
    settings, facts = _recorded(folder, run, model)
    if role:
        facts = facts.model_copy(update={"prompt": _prompt_as(facts.prompt, settings, role)})
    return Shared(weights, folder, run, settings, facts)


def _checkpoint(run: Path, name: str) -> Path:
    if name == "best":
        best = RunFolder(run).best_checkpoint()
        if best is None:
            raise RunError(
                f"{run}: no checkpoint of it did better on validation notes than what training started from; "
                "--checkpoint trained takes the newest one"
            )
        return best
    newest = RunFolder(run).latest_checkpoint()
    if newest is None:
        raise RunError(f"{run}: no checkpoint in this run yet")
    return newest[0]


def _of_role(folder: Path, role: Role | None) -> Path:
    """The folder of the role's own adapter, where there is one for each role."""
    if (folder / ADAPTER_CONFIG).is_file():
        with reading(f"adapter {folder}"):
            check_adapter_files(folder)
    if not (folder / INJECTOR / ADAPTER_CONFIG).is_file():
        return folder
    if role is None:
        raise ConfigError(
            f"{folder}: it has an adapter for each role; give --role assessor (who judges notes) or --role injector"
        )
    return folder / INJECTOR if role == "injector" else folder


def _recorded(folder: Path, run: Path | None, model: str | None) -> tuple[Settings, CardFacts]:
    """Settings and facts: of the run that the checkpoint lies in, else as the folder's card.json tells them."""
    facts = read_facts(folder)
    if run:
        settings = read_settings(run)
        settings = settings.with_overrides(model=model) if model else settings
        return settings, facts or run_facts(settings, _round(folder))
    named = facts.base.name if facts else _base_in(folder)
    prompts = {"prompts": facts.prompt.prompt_set} if facts and facts.prompt.prompt_set in SHIPPED else {}
    packed = facts is not None and facts.base.load_in_4bit
    settings = Settings(model=model or _found_here(named, folder), load_in_4bit=packed, **prompts)
    if facts is None:
        log.warning("%s: no card.json there, so the card says of its training that nothing is recorded", folder)
        facts = _unrecorded(settings, named)
    return settings, facts


def _round(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))["round"])


def _base_in(folder: Path) -> str:
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise ConfigError(f"{folder}: this is a whole model, and no run or card.json tells what it was trained from")
    with reading(f"adapter {folder}"):
        return str(json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path") or "")


def _found_here(base: str, folder: Path) -> str:
    """Where the base model of that name is loaded from."""
    if base in (EMBEDDED, EMBEDDED_HUB):
        return EMBEDDED
    if is_hub_name(base):
        return base
    raise ModelError(f"{folder}: its base model is called {base!r}, which is no name on the hub; add --model FOLDER")


def _unrecorded(settings: Settings, named: str) -> CardFacts:
    assumed = prompt_of(settings).model_copy(update={"assumed": True})
    base = base_of(settings)
    return CardFacts(
        made_by=_UNKNOWN,
        base=base if base.name == EMBEDDED_HUB or not is_hub_name(named) else base.model_copy(update={"name": named}),
        notes=(),
        start=_UNKNOWN,
        signals=(),
        seed=None,
        prompt=assumed,
        version="",
    )


def _prompt_as(prompt: Prompt, settings: Settings, role: Role) -> Prompt:
    """The prompt of that role, by the same prompt set.

    Raises:
        ModelError: the prompt set is a file, and nothing tells where it is.
    """
    if prompt.role == role:
        return prompt
    if Path(settings.prompts).name != prompt.prompt_set:
        raise ModelError(f"--role {role}: the prompts are those of {prompt.prompt_set}, which is not at hand")
    return prompt_of(settings, role)
