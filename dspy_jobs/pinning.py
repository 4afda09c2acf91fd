"""Pins a saved, compiled state of a program in the configuration file, as one more version of it.

The file is edited as its author wrote it: comments and formatting stay. Nothing is written unless the whole file
says afterwards exactly what it said before and the change, and passes the checks of the configuration.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from dspy_jobs.errors import DspyJobsError
from dspy_jobs.settings import ConfigurationError, ProgramSettings, Settings, load_settings

if TYPE_CHECKING:
    from tomlkit.items import Item, Table


class PinRefused(DspyJobsError):
    """The state cannot be pinned; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What was pinned."""

    program: str
    version: str
    sha256: str
    is_new: bool
    """Whether the version was not there before."""
    runs: bool
    """Whether the version now runs where nothing else is asked for."""
    before: str | None
    """The version that ran before."""
    converted: str | None
    """The version that the program's plain `state` became, if it had one."""


def pin(
    settings: Settings,
    program: str,
    state: Path,
    version: str | None = None,
    activate: bool | None = None,
    check: Callable[[Settings], object] = lambda _: None,
) -> Pin:
    """Write a state into the file that the settings were read from.

    Args:
        settings: the configuration as it is.
        program: name of a configured program.
        state: a DSPy state saved as JSON.
        version: what to call it; by default the next free `v1`, `v2`, …
        activate: whether it is to run. By default only a program's first version does, as it must.
        check: called with the new settings before the file is replaced; raises to prevent that.

    Raises:
        PinRefused: the state, the program or the version does not allow it.
        ConfigurationError: the configuration would be wrong.
    """
    source, present = _source(settings), _program(settings, program)
    sha256 = _sha256_of_state(state)
    versions, converted = _present_versions(present)
    name = version or _name_for(sha256, versions)
    if name in versions and versions[name] != sha256:
        raise PinRefused(f"{program} {name} is pinned to another state ({versions[name]}); choose another --version")
    if name not in versions:
        _refuse_shared_file(settings, source, state, sha256)
    active = present.version or converted
    if activate is None:
        activate = not versions
    if not versions and not activate:
        raise PinRefused(f"{name} would be the only version of {program}, so it must run; leave out --no-activate")
    entry = {"state": _path_in_file(state, source), "state_sha256": sha256}
    change = _Change(
        program, converted, {name: entry} if name not in versions else {}, name if activate else present.version
    )
    _rewrite(source, change, check)
    return Pin(program, name, sha256, name not in versions, activate or active == name, active, converted)


def _source(settings: Settings) -> Path:
    if settings.source is None:
        raise PinRefused("there is no dspy-jobs.toml to write to; create one, or name it in DSPY_JOBS_CONFIG")
    return settings.source


def _program(settings: Settings, name: str) -> ProgramSettings:
    if name not in settings.programs:
        known = ", ".join(sorted(settings.programs)) or "none"
        raise PinRefused(f"there is no program {name!r}; add [programs.{name}] first. There are: {known}")
    return settings.programs[name]


def _sha256_of_state(path: Path) -> str:
    """Raises PinRefused: it is no JSON state."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PinRefused(f"{path} cannot be read: {error.strerror}") from None
    remedy = 'save it as JSON, with program.save("….json")'
    if path.suffix in (".pkl", ".pickle") or content.startswith(b"\x80"):
        raise PinRefused(f"{path} is a pickle, which could run any code when it is loaded; {remedy}")
    try:
        state = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise PinRefused(f"{path} is not JSON: {error}; {remedy}") from None
    if not isinstance(state, dict) or not state.keys() - {"metadata"}:
        raise PinRefused(f"{path} is not a saved state of a DSPy program; {remedy}")
    return hashlib.sha256(content).hexdigest()


def _present_versions(program: ProgramSettings) -> tuple[dict[str, str], str | None]:
    """Versions and their digests; a plain state counts as `v1`, which it will become."""
    if program.state_sha256 is not None:
        return {"v1": program.state_sha256}, "v1"
    return {name: state.state_sha256 for name, state in program.versions.items()}, None


def _name_for(sha256: str, versions: dict[str, str]) -> str:
    same = (name for name, digest in versions.items() if digest == sha256)
    free = (f"v{number}" for number in itertools.count(len(versions) + 1) if f"v{number}" not in versions)
    return next(itertools.chain(same, free))


def _refuse_shared_file(settings: Settings, source: Path, state: Path, sha256: str) -> None:
    """A file that another version is pinned to holds one of the two contents only."""
    for name, program in settings.programs.items():
        pinned = {f"{name} {version}": at for version, at in program.versions.items()}
        places = {where: (source.parent / at.state, at.state_sha256) for where, at in pinned.items()}
        if program.state is not None:
            places[name] = (source.parent / program.state, program.state_sha256 or "")
        for where, (path, digest) in places.items():
            if digest != sha256 and path.resolve() == state.resolve():
                raise PinRefused(f"{where} is pinned to this file as it was; save each state as a file of its own")


def _path_in_file(state: Path, source: Path) -> str:
    """Relative to the configuration where it lies beside or below it, so that both can be moved together."""
    whole = state.resolve()
    return str(whole.relative_to(source.parent)) if whole.is_relative_to(source.parent) else str(whole)


@dataclass(frozen=True, slots=True)
class _Change:
    """What is to be different in the file."""

    program: str
    converted: str | None
    added: dict[str, dict[str, str]]
    active: str | None

    def applied(self, content: dict[str, Any]) -> dict[str, Any]:
        """The file's content afterwards, for comparison."""
        program = dict(content["programs"][self.program])
        versions = dict(program.pop("versions", {}))
        if self.converted:
            versions[self.converted] = {name: program.pop(name) for name in ("state", "state_sha256")}
        program["versions"] = versions | self.added
        if active := self.active or self.converted:
            program["version"] = active
        return {**content, "programs": {**content["programs"], self.program: program}}


def _rewrite(path: Path, change: _Change, check: Callable[[Settings], object]) -> None:
    text = path.read_bytes().decode()  # not `read_text`, which would change the ends of lines
    wanted, edited = change.applied(tomllib.loads(text)), _edited(text, change)
    try:
        is_as_wanted = tomllib.loads(edited) == wanted
    except tomllib.TOMLDecodeError:
        is_as_wanted = False
    if not is_as_wanted:
        where = f"[programs.{change.program}]"
        raise PinRefused(f"{path}: write the program as a table of its own, {where}, so that it can be edited")
    # Beside the file: paths in it are relative to its folder, and only so can one replace the other in one step.
    handle, name = tempfile.mkstemp(prefix=".dspy-jobs-", suffix=".toml", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(edited)
        shutil.copymode(path, name)
        check(load_settings(Path(name)))
        Path(name).replace(path)
    except ConfigurationError as mistakes:
        raise ConfigurationError(f"nothing was changed: {str(mistakes).replace(name, str(path))}") from None
    finally:
        Path(name).unlink(missing_ok=True)


def _edited(text: str, change: _Change) -> str:
    """The file's text with the change. Whether it is right is for the caller to see."""
    import tomlkit
    from tomlkit.items import Table

    document = tomlkit.parse(text)
    program: Any = document["programs"][change.program]
    is_table = isinstance(program, Table)
    after = _cut_trailing(program) if is_table else []
    pinned: dict[str, Any] = {}
    if change.converted:
        pinned[change.converted] = {name: program.pop(name) for name in ("state", "state_sha256")}
    pinned |= change.added
    if active := change.active or change.converted:
        program["version"] = active
    if pinned and "versions" not in program:
        program["versions"] = tomlkit.table(is_super_table=True) if is_table else tomlkit.inline_table()
    for name, entry in pinned.items():
        versions = program["versions"]
        versions[name] = tomlkit.table() if isinstance(versions, Table) else tomlkit.inline_table()
        versions[name].update(entry)
    if is_table:
        _last(program).value.body.extend((None, item) for item in after)
    return tomlkit.dumps(document)


def _last(table: Table) -> Table:
    """The table within a table whose text comes last."""
    from tomlkit.items import Table

    inner = [item for _, item in table.value.body if isinstance(item, Table)]
    return _last(inner[-1]) if inner else table


def _cut_trailing(program: Table) -> list[Item]:
    """Take the blank lines and comments from a table's end: they announce what comes after it."""
    from tomlkit.items import Whitespace

    body = _last(program).value.body
    start = len(body)
    while start and body[start - 1][0] is None:
        start -= 1
    while start < len(body) and not isinstance(body[start][1], Whitespace):
        start += 1  # a comment right below an entry is of that entry
    cut = [item for _, item in body[start:]]
    del body[start:]
    return cut
