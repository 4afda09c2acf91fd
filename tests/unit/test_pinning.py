"""`dspy-jobs programs pin`: what it writes, what it says, what it refuses."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dspy_jobs.cli import app
from dspy_jobs.cli.exit_codes import ExitCode

TEXT = """\
# The only model.
default_model = "fast" # and the default

[models.fast]
model = "openai/m"

[programs.qa] # answers
signature = "question -> answer" # as short as can be

# What follows sorts tickets.
[programs.classify]
signature = "ticket -> category"
"""


class Folder:
    """A folder with a configuration, in which the command is run."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path / "dspy-jobs.toml"
        self.file.write_text(TEXT)

    def state(self, name: str, instructions: str = "x", **more: Any) -> str:
        """Save a state. Answers its digest."""
        prefixes = [{"prefix": f"{field}:", "description": ""} for field in ("Question", "Answer")]
        signature = {"instructions": instructions, "fields": prefixes}
        content = {"traces": [], "train": [], "demos": [], "signature": signature, "lm": None, **more}
        (self.path / name).parent.mkdir(exist_ok=True)
        (self.path / name).write_text(json.dumps(content))
        return hashlib.sha256((self.path / name).read_bytes()).hexdigest()

    def pin(self, *args: str) -> Result:
        """Run the command."""
        return CliRunner().invoke(app, ["programs", "pin", "qa", *args], catch_exceptions=False)

    def refused(self, *args: str) -> str:
        """Run the command, which must refuse and change nothing. Answers what it says."""
        before = self.file.read_text()
        result = self.pin(*args)
        assert (result.exit_code, result.stdout, self.file.read_text()) == (ExitCode.USAGE, "", before)
        assert not list(self.path.glob(".*"))
        return result.stderr

    @property
    def program(self) -> dict[str, Any]:
        """`qa` as the file has it."""
        found: dict[str, Any] = tomllib.loads(self.file.read_text())["programs"]["qa"]
        return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder to run the command in; programs are not built, which takes a process and seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dspy_jobs.cli.config.build", lambda _: None)
    return Folder(tmp_path)


def test_the_first_version_runs_at_once(folder: Folder) -> None:
    """The file is as before but for the version, which stands with its program."""
    sha256 = folder.state("compiled/qa.json")
    result = folder.pin("compiled/qa.json")
    assert (result.exit_code, result.stdout) == (0, "v1\n")
    added = f'\n[programs.qa.versions.v1]\nstate = "compiled/qa.json"\nstate_sha256 = "{sha256}"\n'
    signature = 'signature = "question -> answer" # as short as can be\n'
    assert folder.file.read_text() == TEXT.replace(signature, f'{signature}version = "v1"\n{added}')
    assert not list(folder.path.glob(".*"))


def test_a_further_version_waits_until_it_is_activated(folder: Folder) -> None:
    """By the line that the command names, or by the command itself."""
    for name in ("a.json", "b.json"):
        folder.state(name, name)
    folder.pin("a.json")
    result = folder.pin("b.json")
    assert (result.stdout, folder.program["version"]) == ("v2\n", "v1")
    assert 'v1 runs; to run v2, write in [programs.qa]: version = "v2"' in result.stderr
    result = folder.pin("b.json", "--activate")
    assert (result.stdout, folder.program["version"]) == ("v2\n", "v2")
    assert "v2 was pinned already" in result.stderr


def test_the_line_that_rolls_back_does(folder: Folder) -> None:
    """It is the only one that differs between the two versions running."""
    folder.state("a.json", "a")
    folder.pin("a.json")
    folder.state("b.json", "b")
    folder.pin("b.json")
    before = folder.file.read_text()
    result = folder.pin("b.json", "--activate")
    assert result.stderr.endswith('To roll back, write in [programs.qa]: version = "v1"\n')
    assert folder.file.read_text().replace('version = "v2"', 'version = "v1"') == before


def test_a_version_is_never_overwritten(folder: Folder) -> None:
    """Another state under a taken name is refused; the same one again changes nothing."""
    sha256 = folder.state("a.json", "a")
    folder.pin("a.json", "--version", "spring")
    before = folder.file.read_text()
    assert "spring was pinned already" in folder.pin("a.json", "--version", "spring").stderr
    assert folder.pin("a.json").stdout == "spring\n"
    assert folder.file.read_text() == before
    folder.state("b.json", "b")
    assert f"qa spring is pinned to another state ({sha256})" in folder.refused("b.json", "--version", "spring")


def test_a_file_that_a_version_needs_is_not_pinned_again(folder: Folder) -> None:
    """The older version could never be loaded again."""
    folder.state("qa.json", "a")
    folder.pin("qa.json")
    folder.state("qa.json", "b")
    assert "qa v1 is pinned to this file as it was" in folder.refused("qa.json")


def test_a_plain_state_becomes_the_first_version(folder: Folder) -> None:
    """It goes on running until another is activated, and comments stay with their lines."""
    old = folder.state("old.json", "old")
    plain = f'state = "old.json" # compiled in May\nstate_sha256 = "{old}"\n'
    folder.file.write_text(TEXT.replace("as short as can be\n", f"as short as can be\n{plain}"))
    new = folder.state("new.json", "new")
    result = folder.pin("new.json")
    assert (result.stdout, folder.program["version"]) == ("v2\n", "v1")
    assert "its plain state is now the version v1" in result.stderr
    versions = {name: version["state_sha256"] for name, version in folder.program["versions"].items()}
    assert (versions, "state" in folder.program) == ({"v1": old, "v2": new}, False)
    assert f"[programs.qa.versions.v1]\n{plain}" in folder.file.read_text()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("qa.pkl", b"{}", "is a pickle"),
        ("qa.json", b"\x80\x05K\x01.", "is a pickle"),
        ("qa.json", b"{", "is not JSON"),
        ("qa.json", b"[]", "is not a saved state"),
        ("qa.json", b'{"metadata": {}}', "is not a saved state"),
    ],
)
def test_what_is_no_json_state_is_refused(folder: Folder, name: str, content: bytes, said: str) -> None:
    """With the way to save one."""
    (folder.path / name).write_bytes(content)
    assert said in folder.refused(name)


def test_other_mistakes_are_named(folder: Folder) -> None:
    """And nothing is written."""
    assert "absent.json cannot be read: No such file" in folder.refused("absent.json")
    folder.state("a.json")
    assert "so it must run; leave out --no-activate" in folder.refused("a.json", "--no-activate")
    assert f"nothing was changed: {folder.file}: " in folder.refused("a.json", "--version", "no name")
    result = CliRunner().invoke(app, ["programs", "pin", "other", "a.json"])
    assert "there is no program 'other'; add [programs.other] first. There are: classify, qa" in result.stderr


def test_without_a_file_there_is_nothing_to_write_to(folder: Folder) -> None:
    """The message says what to do."""
    folder.file.unlink()
    folder.state("a.json")
    result = folder.pin("a.json")
    assert (result.exit_code, "there is no dspy-jobs.toml" in result.stderr) == (ExitCode.USAGE, True)


@pytest.mark.parametrize(
    "program",
    [
        'programs = {qa = {signature = "question -> answer"}}\n',
        '[programs]\nqa = {signature = "question -> answer"} # c\n',
        'programs.qa.signature = "question -> answer"\n',
        '[programs.qa]\nsignature = "question -> answer"',
        '[programs.qa]\nsignature = "question -> answer"\n[programs.qa.variants]\na = {}\n',
        '[programs.qa]\r\nsignature = "question -> answer"\r\n\r\n# more\r\n',
    ],
)
def test_however_the_program_is_written(folder: Folder, program: str) -> None:
    """Twice, so that a version is added to none and to one."""
    model = '[models.sandbox]\nmodel = "openai/m"\n'
    folder.file.write_bytes(f"{program}\n{model}".encode())
    for name in ("a.json", "b.json"):
        folder.state(name, name)
        result = folder.pin(name, "--activate")
        assert result.exit_code == 0, result.stderr
    assert (folder.program["version"], list(folder.program["versions"])) == ("v2", ["v1", "v2"])
    assert folder.file.read_bytes().endswith(model.encode())
    assert folder.file.read_bytes().count(b"\r\n") >= program.count("\r\n")


def test_what_cannot_be_edited_safely_is_left_alone(folder: Folder) -> None:
    """Keys with dots leave no place for a table of versions."""
    folder.file.write_text('[programs]\nqa.signature = "question -> answer"\nother.signature = "a -> b"\n')
    folder.state("a.json")
    assert "write the program as a table of its own, [programs.qa]" in folder.refused("a.json")


def test_what_could_not_run_is_not_pinned(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs are built with the new state before the file changes, also if it is not to run yet."""
    monkeypatch.undo()
    monkeypatch.chdir(folder.path)
    folder.state("other.json", signature={"instructions": "x", "fields": []})
    said = folder.refused("other.json")
    assert "nothing was changed: programs.qa.versions.v1.state: does not fit the program" in said
    folder.state("fits.json")
    assert folder.pin("fits.json").exit_code == 0
    said = folder.refused("other.json", "--no-activate")
    assert (
        "programs.qa.versions.v2.state: does not fit the program: the program has the fields Question, Answer" in said
    )
