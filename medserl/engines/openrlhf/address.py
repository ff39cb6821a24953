"""Which Ray cluster a run belongs to."""

from __future__ import annotations

import logging
import os
import socket

from ray._private import services

from medserl.errors import ConfigError

log = logging.getLogger("medserl")

ANSWER_SECONDS = 5.0


def cluster_address() -> str:
    """Address of the cluster that `RAY_ADDRESS` names or `ray start` left on this machine; `local` for one of our own.

    Ray looks in the same places, but waits without end for a cluster that is written down and gone.

    Raises:
        ConfigError: nothing answers where `RAY_ADDRESS` points.
    """
    address = services.canonicalize_bootstrap_address(None)
    if address is None:
        return "local"
    if _answers(address):
        return str(address)
    named = os.environ.get("RAY_ADDRESS")
    if named:
        raise ConfigError(f"RAY_ADDRESS is {named}, but no Ray cluster answers there: start it, or unset RAY_ADDRESS")
    log.info("the Ray cluster last started on this machine (%s) is gone: starting one for this run", address)
    return "local"


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS):
            return True
    except OSError:
        return False
