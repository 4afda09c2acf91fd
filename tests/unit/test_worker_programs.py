"""Programs as the worker builds them: pinned states, several versions side by side, variants."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils import DummyLM

from dspy_jobs.settings import ConfigurationError, load_settings
from worker.programs import Arm, Program, load_programs

HEAD = 'default_model = "fast"\n[models.fast]\nmodel = "openai/m"\n[models.slow]\nmodel = "openai/m"\n'


class Folder:
    """A configuration and saved states beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def compile(self, name: str, instructions: str, program: str = "question -> answer") -> str:
        """Save a compiled state with these instructions and a demo that quotes them. Answers its digest."""
        module = dspy.Predict(program)
        module.signature = module.signature.with_instructions(instructions)
        module.demos = [dspy.Example(question=f"demo of {instructions}", answer="yes")]
        module.save(self.path / name)
        return hashlib.sha256((self.path / name).read_bytes()).hexdigest()

    def version(self, name: str, instructions: str) -> str:
        """A compiled version of `qa` as a section of the file."""
        sha256 = self.compile(f"{name}.json", instructions)
        return f'[programs.qa.versions.{name}]\nstate = "{name}.json"\nstate_sha256 = "{sha256}"\n'

    def load(self, text: str) -> Program:
        """The program `qa` of a configuration."""
        (self.path / "dspy-jobs.toml").write_text(HEAD + text)
        return load_programs(load_settings(self.path / "dspy-jobs.toml", {}))["qa"]

    def refused(self, text: str) -> str:
        """What is said of a configuration that cannot be built."""
        with pytest.raises(ConfigurationError) as raised:
            self.load(text)
        return str(raised.value)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder for a configuration."""
    return Folder(tmp_path)


def prompt(arm: Arm) -> str:
    """What a model is asked when the arm runs."""
    model = DummyLM([{"answer": "4"}])
    with dspy.context(lm=model, adapter=dspy.ChatAdapter()):
        arm.for_one_job()(question="2+2?")
    return json.dumps(model.history[-1]["messages"])


QA = '[programs.qa]\nsignature = "question -> answer"\n'


def test_a_program_without_versions_runs_as_it_is_written(folder: Folder) -> None:
    """One arm, which jobs without a variant run."""
    program = folder.load(QA)
    assert list(program.arms) == [""]
    assert (program.description.versions, program.description.variants) == ({}, {})
    assert program.description.version_name is None
    assert program.description.version == program.arms[""].version


def test_a_rollback_is_a_change_of_one_line(folder: Folder) -> None:
    """What runs, and the version that jobs carry, follow that line there and back."""
    versions = folder.version("v1", "Answer briefly.") + folder.version("v2", "Answer at length.")
    runs: dict[str, Any] = {}
    for version, instructions in [("v1", "Answer briefly."), ("v2", "Answer at length."), ("v1", "Answer briefly.")]:
        program = folder.load(f"{QA}version = '{version}'\n{versions}")
        asked = prompt(program.arms[""])
        assert instructions in asked
        assert f"demo of {instructions}" in asked
        assert runs.setdefault(version, program.description.version) == program.description.version
        assert program.description.versions == {version: program.description.version}
        assert program.description.version_name == version
    assert runs["v1"] != runs["v2"]


def test_versions_run_side_by_side(folder: Folder) -> None:
    """Each variant asks with its own instructions and demos; the program's own version is apart from both."""
    text = QA + "version = 'v1'\n" + "".join(folder.version(f"v{n}", f"Rule {n}.") for n in (1, 2, 3))
    text += (
        "[programs.qa.variants]\na = {}\nb = {version = 'v2', model = 'slow', weight = 3, parameters = {top_p = 1}}\n"
    )
    program = folder.load(text)
    for _ in range(2):
        assert "Rule 1." in prompt(program.arms["a"])
        assert "Rule 2." in prompt(program.arms["b"])
        assert "Rule 2." not in prompt(program.arms[""])
    assert program.arms["b"].parameters == {"top_p": 1}
    described = program.description.variants
    assert described["a"].version == program.description.version != described["b"].version
    assert (described["b"].model, described["b"].weight, described["b"].version_name) == ("slow", 3, "v2")
    assert described["a"].model == "fast"
    assert set(program.description.versions) == {"v1", "v2"}, "v3 is not used, so it is not loaded"


def test_jobs_without_a_variant_run_the_heaviest_ones_version(folder: Folder) -> None:
    """Where the program itself names no version."""
    text = QA + folder.version("v1", "Rule 1.") + folder.version("v2", "Rule 2.")
    text += "[programs.qa.variants]\na = {version = 'v1'}\nb = {version = 'v2', weight = 2}\n"
    program = folder.load(text)
    assert "Rule 2." in prompt(program.arms[""])
    assert program.description.version_name == "v2"


def test_types_are_the_programs_not_the_states(folder: Folder) -> None:
    """A compiled version changes no schema, so that the inputs a caller sends fit every version."""
    plain = folder.load(QA).description
    compiled = folder.load(f"{QA}version = 'v1'\n{folder.version('v1', 'Rule.')}").description
    assert (compiled.input_schema, compiled.output_schema) == (plain.input_schema, plain.output_schema)
    assert compiled.version != plain.version


def test_a_state_with_a_model_does_not_bring_it(folder: Folder) -> None:
    """The job's model counts."""
    module = dspy.Predict("question -> answer")
    module.set_lm(dspy.LM("openai/other"))
    module.save(folder.path / "s.json")
    sha256 = hashlib.sha256((folder.path / "s.json").read_bytes()).hexdigest()
    program = folder.load(f"{QA}state = 's.json'\nstate_sha256 = '{sha256}'\n")
    assert program.arms[""].module.predictors()[0].lm is None


@pytest.mark.parametrize("other", ["query -> answer", "question, context -> answer", "question -> reason, answer"])
def test_a_state_of_other_fields_is_refused(folder: Folder, other: str) -> None:
    """DSPy would load it and lay its texts over the wrong fields."""
    sha256 = folder.compile("s.json", "x", other)
    text = f"{QA}version = 'v1'\n[programs.qa.versions.v1]\nstate = 's.json'\nstate_sha256 = '{sha256}'\n"
    said = folder.refused(text)
    assert (
        "programs.qa.versions.v1.state: does not fit the program: the program has the fields Question, Answer" in said
    )
    assert f"the state {', '.join(name.strip().title() for name in re.split(',|->', other))}" in said


def test_a_state_of_other_predictors_is_refused(folder: Folder) -> None:
    """In words that name both, whichever of the two is the bare predictor."""
    dspy.ChainOfThought("question -> answer").save(folder.path / "s.json")
    sha256 = hashlib.sha256((folder.path / "s.json").read_bytes()).hexdigest()
    said = folder.refused(f"{QA}state = 's.json'\nstate_sha256 = '{sha256}'\n")
    assert "the program has one predictor without a name, as dspy.Predict, the state the predictors 'predict'" in said
    sha256 = folder.compile("s.json", "x")
    said = folder.refused(
        f"[programs.qa]\nfactory = 'tests.programs:reasoned'\nstate = 's.json'\nstate_sha256 = '{sha256}'\n"
    )
    assert "the program has the predictors 'predict', the state one predictor without a name" in said


def test_every_version_is_checked_where_that_is_asked(folder: Folder) -> None:
    """Also those that nothing runs: missing, changed, of another program; all are named."""
    text = f"{QA}version = 'v1'\n" + "".join(folder.version(f"v{n}", f"Rule {n}.") for n in (1, 2, 3, 4))
    folder.load(text)
    (folder.path / "v2.json").unlink()
    folder.compile("v3.json", "another")
    before = text.partition("[programs.qa.versions.v4]")[0]
    sha256 = folder.compile("v4.json", "x", "query -> answer")
    text = f"{before}[programs.qa.versions.v4]\nstate = 'v4.json'\nstate_sha256 = '{sha256}'\n"
    folder.load(text)
    with pytest.raises(ConfigurationError) as raised:
        load_programs(load_settings(folder.path / "dspy-jobs.toml", {}), every_version=True)
    said = str(raised.value).splitlines()
    assert [line.partition(": ")[0] for line in said] == [
        "programs.qa.versions.v2.state",
        "programs.qa.versions.v3.state_sha256",
        "programs.qa.versions.v4.state",
    ]


@pytest.mark.parametrize("content", ["[]", "7", "{}", '{"predict": {}}', '{"self": {}}', "not json"])
def test_what_is_no_state_is_refused(folder: Folder, content: str) -> None:
    """Named with its path, whatever it holds."""
    (folder.path / "s.json").write_text(content)
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    text = f"{QA}state = 's.json'\nstate_sha256 = '{sha256}'\n"
    said = folder.refused(text)
    assert "programs.qa.state: does not fit the program: " in said
    assert "Error" not in said


def test_a_module_of_several_predictors_loads_a_state_for_each(folder: Folder) -> None:
    """As `save` of such a module writes it; a predictor more or less is refused."""
    module = dspy.ChainOfThought("question -> answer")
    module.predict.signature = module.predict.signature.with_instructions("Think hard.")
    module.save(folder.path / "s.json")
    sha256 = hashlib.sha256((folder.path / "s.json").read_bytes()).hexdigest()
    pinned = f"state = 's.json'\nstate_sha256 = '{sha256}'\n"
    program = folder.load(f"[programs.qa]\nfactory = 'tests.programs:reasoned'\n{pinned}")
    assert program.arms[""].module.predict.signature.instructions == "Think hard."
    assert "does not fit" in folder.refused(f"[programs.qa]\nfactory = 'tests.programs:three_steps'\n{pinned}")


def test_a_changed_state_is_refused(folder: Folder) -> None:
    """The pinned bytes run, or nothing."""
    text = f"{QA}version = 'v1'\n{folder.version('v1', 'one')}"
    folder.compile("v1.json", "another")
    assert "programs.qa.versions.v1.state_sha256: " in folder.refused(text)
