"""Ending a run by a signal: the round at hand is finished and saved first."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("medserl")

INSISTED_ON = (signal.SIGINT, signal.SIGTERM)
HANG_UP = getattr(signal, "SIGHUP", None)
"""The terminal was closed. Windows has no such signal; `nohup` has it ignored, and so do we then."""


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Inside, the first SIGINT, SIGTERM or SIGHUP sets `stop`; SIGINT or SIGTERM after it end the process at once.

    A second SIGHUP does nothing: a closing terminal sends several.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hang_up = [HANG_UP] if HANG_UP and signal.getsignal(HANG_UP) is not signal.SIG_IGN else []
    before = {number: signal.getsignal(number) for number in (*INSISTED_ON, *hang_up)}

    def handle(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in hang_up:
            signal.signal(number, signal.SIG_IGN)
        stop.set()
        log.warning("stopping after this round (once more to stop at once)")

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
