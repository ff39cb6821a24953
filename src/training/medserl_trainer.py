"""Documented path: the trainer, and `python src/training/medserl_trainer.py --prompt-data ...` (= `medserl train ...`).

The code lives in `medserl.trainer`.
"""

from medserl.data.given import sample_notes
from medserl.trainer import MedSeRLTrainer

__all__ = ["MedSeRLTrainer", "sample_notes"]

if __name__ == "__main__":
    import sys

    from medserl.cli import main

    main(["train", *sys.argv[1:]])
