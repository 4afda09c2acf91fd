"""What model names and paths ask the sandbox to do, and when it does it."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from sandbox import faults
from sandbox.faults import Behaviour, Fate

PROMPTS = [b"prompt %d" % number for number in range(4000)]


@pytest.mark.parametrize(
    ("modifiers", "behaviour"),
    [
        ("", Behaviour()),
        ("latency=0.2", Behaviour(latency=("uniform", 0.2, 0.2))),
        ("latency=uniform:0.1:0.5", Behaviour(latency=("uniform", 0.1, 0.5))),
        ("latency=lognormal:2:20", Behaviour(latency=("lognormal", 2.0, 20.0))),
        ("fail=500:0.05,429:0.1", Behaviour(faults=(("500", 0.05), ("429", 0.1)))),
        ("fail=context_length_exceeded", Behaviour(faults=(("context_length_exceeded", 1.0),))),
        ("fail=429:1;retry_after=2", Behaviour(faults=(("429", 1.0),), retry_after=2.0)),
        ("hang=1", Behaviour(faults=(("hang", 1.0),))),
        ("hang=30", Behaviour(faults=(("hang", 1.0),), hang_seconds=30.0)),
        ("drop=0.1;malformed=0.2", Behaviour(faults=(("drop", 0.1), ("malformed", 0.2)))),
        ("truncated=1;usage=none", Behaviour(faults=(("truncated", 1.0),), usage="none")),
        ("seed=abc;first=2:500", Behaviour(seed="abc", first=(2, "500"))),
        ("fail=500:1;fail=500:0", Behaviour()),
    ],
)
def test_modifiers_are_read(modifiers: str, behaviour: Behaviour) -> None:
    """Every modifier has the meaning that `GET /` gives it, and the later of two values wins."""
    assert faults.parse(modifiers) == behaviour


@pytest.mark.parametrize(
    ("modifiers", "named"),
    [
        ("lateny=1", "lateny"),
        ("latency", "latency"),
        ("latency=fast", "fast"),
        ("latency=nan", "nan"),
        ("latency=-1", "-1"),
        ("latency=lognormal:2", "lognormal:2"),
        ("latency=lognormal:0:1", "lognormal:0:1"),
        ("latency=uniform:2:1", "uniform:2:1"),
        ("fail=999:1", "999"),
        ("fail=500:2", "2"),
        ("drop=1.5", "1.5"),
        ("drop=0.6;fail=500:0.6", "more than 1"),
        ("first=500", "first"),
        ("first=2:nothing", "nothing"),
        ("usage=some", "some"),
    ],
)
def test_a_wrong_modifier_is_named(modifiers: str, named: str) -> None:
    """A modifier that cannot be obeyed is refused with an error that names what is wrong."""
    with pytest.raises(faults.ModifierError, match=named):
        faults.parse(modifiers)


def test_a_name_and_a_path_ask_for_the_same() -> None:
    """Modifiers in the path equal those in the model's name, and the name wins where both speak."""
    assert faults.behaviour_of("sandbox", "latency=0.2") == faults.behaviour_of("sandbox;latency=0.2")
    assert faults.behaviour_of("sandbox;latency=1", "latency=0.2").latency == ("uniform", 1.0, 1.0)
    assert faults.behaviour_of("sandbox-slow;fail=500:1").latency == ("uniform", 0.2, 0.2)


@pytest.mark.parametrize(("name", "any_name"), [("sandbx", False), ("gpt-4o", False), ("sandbox-fast", True)])
def test_an_unknown_model_is_refused(name: str, any_name: bool) -> None:
    """A mistyped sandbox model is never answered as if it were another."""
    with pytest.raises(faults.UnknownModelError):
        faults.behaviour_of(name, any_name=any_name)


def test_a_path_lets_foreign_names_through() -> None:
    """Under a path prefix a configuration written for a real provider works unchanged."""
    assert faults.behaviour_of("gpt-4o", "fail=500:1", any_name=True).faults == (("500", 1.0),)


def test_the_same_call_meets_the_same_fate() -> None:
    """A fate depends on prompt, attempt and seed alone, and each of the three changes it for some prompt."""
    behaviour = faults.parse("fail=500:0.5;latency=uniform:1:2")

    def fates(modifiers: str, attempt: int) -> list[Fate]:
        return [faults.fate(faults.parse(modifiers), prompt, attempt) for prompt in PROMPTS[:50]]

    assert fates("fail=500:0.5;latency=uniform:1:2", 1) == [faults.fate(behaviour, p, 1) for p in PROMPTS[:50]]
    assert fates("fail=500:0.5", 1) != fates("fail=500:0.5", 2)
    assert fates("fail=500:0.5", 1) != fates("fail=500:0.5;seed=other", 1)
    assert len(set(fates("fail=500:0.5", 1))) == 2


def test_faults_come_as_often_as_asked() -> None:
    """Over many prompts each fault's share is near its probability."""
    outcomes = Counter(faults.fate(faults.behaviour_of("sandbox-flaky"), prompt, 1).outcome for prompt in PROMPTS)
    assert outcomes["500"] + outcomes["429"] == pytest.approx(0.05 * len(PROMPTS), rel=0.3)
    assert min(outcomes["500"], outcomes["429"]) > 0
    assert sum(outcomes.values()) == outcomes["answer"] + outcomes["500"] + outcomes["429"]


def test_the_tail_has_its_median_and_p99() -> None:
    """`sandbox-tail` answers after a median of 2 s, and 1 % of its calls take longer than 20 s."""
    delays = sorted(faults.fate(faults.behaviour_of("sandbox-tail"), prompt, 1).delay for prompt in PROMPTS)
    assert delays[len(delays) // 2] == pytest.approx(2, rel=0.1)
    assert delays[len(delays) * 99 // 100] == pytest.approx(20, rel=0.3)


def test_the_first_calls_fail_and_the_next_succeeds() -> None:
    """`first=2:500` fails attempts 1 and 2 of every prompt and no later one."""
    behaviour = faults.parse("first=2:500")
    assert [faults.fate(behaviour, b"prompt", attempt).outcome for attempt in (1, 2, 3, 4)] == [
        "500",
        "500",
        "answer",
        "answer",
    ]


@pytest.mark.parametrize(("modifiers", "delay"), [("hang=1;latency=3", math.inf), ("hang=30;latency=3", 30.0)])
def test_a_hang_outlasts_the_latency(modifiers: str, delay: float) -> None:
    """A hanging call waits for the client to leave, or for its own number of seconds."""
    assert faults.fate(faults.parse(modifiers), b"prompt", 1) == Fate(delay, "hang")
