"""How much memory is left for another worker, on the machine and in the container we may run in."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_MIB = 2**20


def available_mib(cgroup: Path = _CGROUP) -> float:
    """MiB that can be used without swapping: the machine's, or what the container's limit leaves if that is less."""
    machine: float = psutil.virtual_memory().available / _MIB
    return min(machine, _left_in(cgroup, machine))


def _left_in(cgroup: Path, otherwise: float) -> float:
    """What a control group's limit leaves; file pages in it can be dropped, so they do not count as used."""
    try:
        limit, used = int((cgroup / "memory.max").read_text()), int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, no limit ("max"), or an older kind of control group
        return otherwise
    return (limit - used + int(stat.get("inactive_file", "0"))) / _MIB
