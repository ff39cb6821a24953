"""MedSeRL: one language model learns to find medical errors in clinical notes by playing against itself."""

from medserl.privacy import switch_reports_off

__version__ = "0.1.0"

switch_reports_off()
