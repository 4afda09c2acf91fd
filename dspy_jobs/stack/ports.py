"""The ports a stack listens on: looked at before anything starts, so that a taken one is a clear error."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from dspy_jobs.settings import Settings, load_settings
from dspy_jobs.stack.parts import Part
from dspy_jobs.stack.refusals import CannotStart

_SETTINGS = {
    "api": "DSPY_JOBS_API_PORT",
    "sandbox": "DSPY_JOBS_SANDBOX_PORT",
    "flower": "DSPY_JOBS_FLOWER_PORT",
}


def load_with_ports(environ: Mapping[str, str], *, move_taken: bool = False) -> Settings:
    """The settings with every port 0, and if asked every taken port, replaced by a free one.

    Raises:
        ConfigurationError: the configuration is wrong.
    """
    settings = load_settings(environ=environ)
    moved = {
        _SETTINGS[name]: str(free_port())
        for name, (host, port) in _addresses(settings).items()
        if port == 0 or (move_taken and not _is_free(host, port))
    }
    # Loaded anew, since addresses in the file may name the port's variable.
    return load_settings(environ={**environ, **moved}) if moved else settings


def check_ports(settings: Settings, parts: list[Part]) -> None:
    """See that every port these parts listen on is free.

    Raises:
        CannotStart: one is taken, or two parts share one; the message names the setting that moves it.
    """
    addresses = _addresses(settings)
    seen: dict[int, str] = {}
    for name in (part.name for part in parts if part.name in addresses):
        host, port = addresses[name]
        setting = _SETTINGS[name]
        if port in seen:
            raise CannotStart(f"{seen[port]} and {setting} are both {port}: change one of them")
        if not _is_free(host, port):
            raise CannotStart(f"port {port} is in use: stop what listens there or set {setting}")
        seen[port] = setting


def free_port() -> int:
    """A port nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _addresses(settings: Settings) -> dict[str, tuple[str, int]]:
    return {
        "api": (settings.api.host, settings.api.port),
        "sandbox": ("127.0.0.1", settings.sandbox.port),
        "flower": (settings.flower.host, settings.flower.port),
    }


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: connections that are closing do not keep a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Without this a server bound to a wider address, and listening, would go unnoticed.
            probe.listen(1)
        except OSError:
            return False
    return True
