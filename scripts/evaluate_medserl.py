"""Documented path: MEDEC tests and convergence (= `medserl evaluate ...`)."""

import sys

from medserl.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
