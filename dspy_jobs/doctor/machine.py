"""Looks at this machine: Python, packages, limits, disk, ports."""

from __future__ import annotations

import resource
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

import httpx
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from dspy_jobs import __version__
from dspy_jobs.disk_space import complaint_about_disk, disk_space
from dspy_jobs.doctor.finding import Finding, fail, of_complaint, ok, skip, warn
from dspy_jobs.redis_url import is_embedded
from dspy_jobs.settings import Settings
from dspy_jobs.stack.parts import api_url

#: What a process needs beside its threads' connections: Redis, logs, the programs' own files.
_SPARE_FILES = 256
#: Files a thread may have open at once: a call to the provider, and what its program opens.
_FILES_A_THREAD = 2
#: Extras that only matter to who develops or draws.
#: Seconds an answer is waited for.
_PATIENCE_SECONDS = 2.0
_NOT_RUN = ("dev", "plot")


def look_at_python() -> Iterator[Finding]:
    """Whether this Python and what is installed in it are of the versions that were tested together."""
    running = ".".join(map(str, sys.version_info[:3]))
    try:
        supported = SpecifierSet(metadata("dspy-jobs")["Requires-Python"] or "")
        wanted = [Requirement(line) for line in requires("dspy-jobs") or []]
    except PackageNotFoundError:
        yield ok("Python", running)
        yield skip("packages", "dspy-jobs runs from its sources, so its pins are not known here")
        return
    if running in supported:
        yield ok("Python", f"{running}, dspy-jobs {__version__}")
    else:
        yield fail("Python", f"{running} is not among {supported}", "make the environment with such a Python")
    yield from _packages(wanted)


def _packages(wanted: list[Requirement]) -> Iterator[Finding]:
    wrong, right = [], 0
    for requirement in wanted:
        if any(f"extra == '{name}'" in str(requirement.marker).replace('"', "'") for name in _NOT_RUN):
            continue
        installed = _installed(requirement.name)
        if installed is None:
            # The parts of an extra that is not installed are missing by intent.
            wrong += [] if requirement.marker else [f"{requirement.name} is missing"]
        elif not requirement.specifier.contains(Version(installed), prereleases=True):
            wrong.append(f"{requirement.name} is {installed}, not {requirement.specifier}")
        else:
            right += 1
    if wrong:
        yield fail("packages", "; ".join(wrong), "install the pinned ones: `pip install -r requirements.txt`")
    else:
        yield ok("packages", f"{right} of the versions that are asked for")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def look_at_files(settings: Settings) -> Iterator[Finding]:
    """Whether a worker's threads, and the API's clients, may open as many connections as they need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES_A_THREAD * settings.worker.concurrency + _SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        yield ok("open files", f"{'any number of' if soft == resource.RLIM_INFINITY else soft} files may be open")
    else:
        detail = f"{soft} files may be open; {settings.worker.concurrency} threads may need {needed}"
        may_raise = hard == resource.RLIM_INFINITY or hard >= needed
        how = f"`ulimit -n {needed}`" if may_raise else "have the hard limit raised"
        yield warn("open files", detail, f"{how}, or lower worker.concurrency")


def look_at_disk(settings: Settings) -> Iterator[Finding]:
    """Whether there is room for the embedded Redis's data."""
    if not is_embedded(settings):
        yield skip("disk", "Redis is not embedded; it keeps its data elsewhere")
    elif not settings.data_dir.exists():
        yield skip("disk", f"{settings.data_dir} is not there yet; `dspy-jobs up` makes it")
    else:
        space = disk_space(settings.data_dir)
        complaint = complaint_about_disk(space)
        yield of_complaint("disk", complaint) if complaint else ok("disk", f"{space.free_bytes / 2**30:.1f} GiB free")


def look_at_ports(settings: Settings, api_answers: bool) -> Iterator[Finding]:
    """While the API does not answer: whether somebody else has its port."""
    host, port = settings.api.host, settings.api.port
    if api_answers or port == 0:
        return
    if _is_of_this_service(settings):
        detail = f"this service answers at {api_url(settings)}, where this configuration has it"
        yield warn("API port", detail, "correct --url or DSPY_JOBS_URL, which name another address")
    elif _is_taken(host, port):
        detail = f"port {port} is taken by something that is not this service"
        yield fail("API port", detail, "stop what listens there, or set DSPY_JOBS_API_PORT")
    else:
        yield ok("API port", f"{port} is free: nothing runs there")


def _is_of_this_service(settings: Settings) -> bool:
    """Whether what listens there is an API of dspy-jobs, which nobody should be told to stop."""
    try:
        found = httpx.get(f"{api_url(settings)}/health/live", timeout=_PATIENCE_SECONDS, trust_env=False).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False
    return isinstance(found, dict) and found.keys() == {"status", "version"}


def _is_taken(host: str, port: int) -> bool:
    try:
        with socket.create_connection(({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port), timeout=1):  # noqa: S104
            return True
    except OSError:
        return False
