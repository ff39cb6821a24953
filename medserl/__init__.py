"""MedSeRL: one language model learns to find medical errors in clinical notes by playing against itself.

Begin here; each name is loaded when it is first used, so that `import medserl` costs nothing:

    load_notes, sample_notes    files of notes, and the embedded notes of invented patients, as lists of `Note`
    MedSeRLTrainer              trains a model on notes: a file or a list
    Assessor                    judges notes with a trained model, and plays single games
    apply_vcf                   the verifiable change filter: is this edit small, and in one sentence?
    VCFRolloutGenerator         plays the game over a batch, through any engine

    from medserl import Assessor, MedSeRLTrainer, load_notes

    run = MedSeRLTrainer(prompt_data="notes.csv", output_dir="outputs/mine", max_rounds=20).train()
    with Assessor.from_run(run.path) as assessor:
        findings = assessor.judge(load_notes("new.csv"))

docs/python.md has more. `medserl --help` is the command line. Errors that a user can mend are `MedSeRLError`s of one
line. To read the code, begin with `medserl/trainer.py`, the loop; docs/design.md says what every part is for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medserl.privacy import switch_reports_off

if TYPE_CHECKING:
    from medserl.config import Settings
    from medserl.data.given import load_notes, sample_notes
    from medserl.errors import MedSeRLError
    from medserl.game.note import Note
    from medserl.game.setup import GameSetup
    from medserl.game.vcf import apply_vcf
    from medserl.prediction.assessor import Assessor, Finding
    from medserl.rollout import VCFRolloutGenerator
    from medserl.trainer import MedSeRLTrainer

__version__ = "0.1.0"

__all__ = [
    "Assessor",
    "Finding",
    "GameSetup",
    "MedSeRLError",
    "MedSeRLTrainer",
    "Note",
    "Settings",
    "VCFRolloutGenerator",
    "apply_vcf",
    "load_notes",
    "sample_notes",
]

switch_reports_off()

if not TYPE_CHECKING:  # a type checker knows the names above, and no others
    _HOMES = {
        "Assessor": "medserl.prediction.assessor",
        "Finding": "medserl.prediction.assessor",
        "GameSetup": "medserl.game.setup",
        "MedSeRLError": "medserl.errors",
        "MedSeRLTrainer": "medserl.trainer",
        "Note": "medserl.game.note",
        "Settings": "medserl.config",
        "VCFRolloutGenerator": "medserl.rollout",
        "apply_vcf": "medserl.game.vcf",
        "load_notes": "medserl.data.given",
        "sample_notes": "medserl.data.given",
    }

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
