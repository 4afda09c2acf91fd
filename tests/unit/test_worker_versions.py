"""A program's version changes with whatever decides what it does, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CONFIG = """
default_model = "m"
[models.m]
model = "openai/m"
base_url = "http://127.0.0.1:1/v1"
[programs.plain]
signature = "text -> answer"
[programs.twin]
signature = "text -> answer"
""" + "".join(f'[programs.{name}]\nfactory = "prog:{name}"\n' for name in ("helped", "derived", "tooled", "warm"))

CODE = """
import dspy
from shapes import Point
from parts.base import Base

def clean(text): return text.upper()

class Helped(dspy.Module):
    def __init__(self):
        super().__init__()
        self.step = dspy.Predict("text -> answer")
    def forward(self, text):
        return dspy.Prediction(answer=clean(self.step(text=text).answer))

class Derived(Base):
    pass

def price(item: str) -> str:
    return "1 EUR"

def helped(): return Helped()
def derived(): return Derived()
def tooled(): return dspy.ReAct("text -> answer", tools=[price])
def warm(): return dspy.Predict("text -> answer", temperature=0.0)
"""

FILES = {
    "prog.py": CODE,
    "shapes.py": "from pydantic import BaseModel\nclass Point(BaseModel):\n    x: int\n",
    "parts/__init__.py": "",
    "parts/base.py": "import dspy\nfrom .deep import SUFFIX\n\nclass Base(dspy.Module):\n"
    "    def __init__(self):\n        super().__init__()\n        self.step = dspy.Predict('text -> answer')\n"
    "    def forward(self, text):\n        return self.step(text=text + SUFFIX)\n",
    "parts/deep.py": "SUFFIX = ' A'\n",
    "beside.py": "UNUSED = 1\n",
    "dspy-jobs.toml": CONFIG,
}

PRINT = (
    "import sys; from pathlib import Path; from dspy_jobs.settings import load_settings;"
    "from worker.programs import load_programs;"
    "print(*sorted(f'{n}={p.description.version}' for n, p in"
    " load_programs(load_settings(Path(sys.argv[1]), {})).items()))"
)


def write(folder: Path) -> None:
    """The programs as they were."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def versions(folder: Path) -> dict[str, str]:
    """Versions as a fresh process has them, for a process reads code once."""
    command = [sys.executable, "-B", "-c", PRINT, str(folder / "dspy-jobs.toml")]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return dict(pair.split("=") for pair in found.stdout.split())


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The versions of the programs as they were, in another folder than any test's."""
    folder = tmp_path_factory.mktemp("before")
    write(folder)
    return versions(folder)


def test_no_two_programs_share_a_version(before: dict[str, str]) -> None:
    """Not even those that are written alike: their answers are kept apart."""
    assert len(set(before.values())) == len(before) == 6


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("prog.py", "text.upper()", "text.lower()"),
        ("prog.py", "1 EUR", "2 EUR"),
        ("prog.py", "temperature=0.0", "temperature=1.0"),
        ("parts/deep.py", "A", "B"),
        ("shapes.py", "x: int", "x: int  # in metres"),
    ],
)
def test_code_that_a_program_imports_changes_its_version(
    tmp_path: Path, before: dict[str, str], file: str, old: str, new: str
) -> None:
    """Wherever it stands; programs without code of their own keep theirs, and so does where the files lie."""
    write(tmp_path)
    (tmp_path / file).write_text(FILES[file].replace(old, new))
    after = versions(tmp_path)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"helped", "derived", "tooled", "warm"}


def test_other_files_change_nothing(tmp_path: Path, before: dict[str, str]) -> None:
    """Files that no program imports, and comments of the configuration."""
    write(tmp_path)
    (tmp_path / "beside.py").write_text("UNUSED = 2\n")
    (tmp_path / "dspy-jobs.toml").write_text(CONFIG + "\n# a comment\n")
    assert versions(tmp_path) == before
