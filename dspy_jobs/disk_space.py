"""Room for the embedded Redis's data, and when it becomes too little."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from dspy_jobs.redis_state import Complaint

#: Free space below which Redis will soon refuse writes, and below which it is about to, in bytes.
LITTLE, TOO_LITTLE = 2**30, 2**27


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Where the embedded Redis keeps its data, in bytes."""

    free_bytes: int
    total_bytes: int
    data_bytes: int
    """What it keeps there."""


def disk_space(folder: Path) -> DiskSpace:
    """The room in a folder of the embedded Redis.

    Raises:
        OSError: it cannot be looked at.
    """
    usage = shutil.disk_usage(folder)
    kept = sum(file.stat().st_size for file in folder.rglob("*.aof*") if file.is_file())
    return DiskSpace(usage.free, usage.total, kept)


def complaint_about_disk(disk: DiskSpace) -> Complaint | None:
    """Why the room does not do, if it does not."""
    # Redis writes its file anew beside the old one when that has grown.
    if disk.free_bytes >= max(LITTLE, disk.data_bytes):
        return None
    what = f"only {disk.free_bytes / 2**20:.0f} MiB are free for Redis's data"
    return Complaint(what, "make room, or Redis refuses writes", stops_work=disk.free_bytes < TOO_LITTLE)
