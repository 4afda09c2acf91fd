"""One tiny DSPy program per behaviour, for tests: each factory's docstring says what it does."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import resource
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from typing import Any, Literal

import dspy
import structlog
from pydantic import BaseModel

from dspy_jobs.waiting import wait_until


class Point(BaseModel):
    """A nested type."""

    x: int
    label: str | None = None


class _Free(dspy.Module):
    """A module whose answer is a function of its one text, without a model."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self._answer = answer

    def forward(self, text: str) -> dspy.Prediction:
        return dspy.Prediction(answer=self._answer(text))


def echo() -> dspy.Module:
    """Gives its text back, without a model call."""
    return _Free(lambda text: text)


def crash() -> dspy.Module:
    """Raises an error of its own."""

    def fail(text: str) -> str:
        raise RuntimeError(f"no luck with {text}")

    return _Free(fail)


def leak() -> dspy.Module:
    """Raises an error whose text holds a key."""

    def fail(text: str) -> str:
        raise RuntimeError("refused: Bearer sk-abcdefghijklmnop")

    return _Free(fail)


def misspeaks() -> dspy.Module:
    """Raises an error whose text is not valid Unicode."""

    def fail(text: str) -> str:
        raise RuntimeError("\ud800 is no character")

    return _Free(fail)


class _Mute(Exception):
    """An error that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def mute() -> dspy.Module:
    """Raises an error whose text cannot be had."""

    def fail(text: str) -> str:
        raise _Mute

    return _Free(fail)


def infinite() -> dspy.Module:
    """Answers a number that JSON has no word for."""
    return _Free(lambda text: [{"score": float("nan")}])


def unserialisable() -> dspy.Module:
    """Answers something JSON cannot express."""
    return _Free(lambda text: object())


def enormous() -> dspy.Module:
    """Answers more than any limit allows."""
    return _Free(lambda text: "x" * 3_000_000)


def surrogate() -> dspy.Module:
    """Answers a text that is not valid Unicode."""
    return _Free(lambda text: "\ud800")


def sleepy() -> dspy.Module:
    """Sleeps as many seconds as its text says."""

    def sleep(text: str) -> str:
        time.sleep(float(text))
        return text

    return _Free(sleep)


def exits() -> dspy.Module:
    """Calls `sys.exit`."""

    def leave(text: str) -> str:
        raise SystemExit(3)

    return _Free(leave)


class _Steps(dspy.Module):
    """Calls the model again and again."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.step = dspy.Predict("text, number: int -> answer")

    def forward(self, text: str) -> dspy.Prediction:
        answers = [self.step(text=text, number=number).answer for number in range(self.steps)]
        return dspy.Prediction(answer=answers[-1], steps=len(answers))


class _Candid(_Steps):
    """Calls the model and says by which instructions."""

    def forward(self, text: str) -> dspy.Prediction:
        self.step(text=text, number=1)
        return dspy.Prediction(answer=self.step.signature.instructions)


def candid() -> dspy.Module:
    """Answers the instructions its one predictor asked the model by."""
    return _Candid(1)


def three_steps() -> dspy.Module:
    """Three model calls, one after the other."""
    return _Steps(3)


def two_steps() -> dspy.Module:
    """Two model calls, the first two of `three_steps`."""
    return _Steps(2)


def endless() -> dspy.Module:
    """More model calls than any budget allows."""
    return _Steps(1_000_000)


class _Stubborn(_Steps):
    """Catches every `Exception` and goes on, as DSPy's own modules do."""

    def forward(self, text: str) -> dspy.Prediction:
        for number in range(self.steps):
            try:
                self.step(text=text, number=number)
            except Exception:  # noqa: BLE001  # the behaviour under test
                continue
        return dspy.Prediction(answer="done")


def stubborn() -> dspy.Module:
    """Catches whatever its model calls raise and calls again."""
    return _Stubborn(1_000_000)


class Typed(dspy.Signature):
    """Every kind of type an input or output may have."""

    text: str = dspy.InputField()
    count: int = dspy.InputField()
    point: Point = dspy.InputField()
    kind: Literal["a", "b"] = dspy.OutputField()
    points: list[Point] = dspy.OutputField()
    sure: bool = dspy.OutputField()


def typed() -> dspy.Module:
    """Typed inputs and outputs."""
    return dspy.Predict(Typed)


def reasoned() -> dspy.Module:
    """A chain of thought: its reasoning is an output."""
    return dspy.ChainOfThought("question -> answer")


def not_a_module() -> Any:
    """Returns something that is no `dspy.Module`."""
    return "a text"


def kills_worker() -> dspy.Module:
    """Ends its whole process, as running out of memory does."""

    def leave(text: str) -> str:
        os._exit(137)

    return _Free(leave)


def devours() -> dspy.Module:
    """Asks for more memory than its process may have."""

    def devour(text: str) -> int:
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, before[1]))
        try:
            return len(bytearray(16 << 30))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    return _Free(devour)


def hangs() -> dspy.Module:
    """Never returns and calls no model."""

    def wait(text: str) -> str:
        threading.Event().wait()
        return text

    return _Free(wait)


def chatty() -> dspy.Module:
    """Prints, warns, logs and leaves a thread behind."""

    def talk(text: str) -> str:
        print("noise" * 1000)
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        return text

    return _Free(talk)


class _Chain(dspy.Module):
    """Three predictors, each fed by the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.outline = dspy.Predict("text -> outline")
        self.draft = dspy.Predict("outline -> draft")
        self.polish = dspy.Predict("draft -> answer")

    def forward(self, text: str) -> dspy.Prediction:
        draft = self.draft(outline=self.outline(text=text).outline).draft
        return dspy.Prediction(answer=self.polish(draft=draft).answer)


def chain() -> dspy.Module:
    """Three model calls, each made of the answer before."""
    return _Chain()


def look_up(place: str) -> str:
    """A tool that always says the same."""
    return f"{place} is a place."


def researcher() -> dspy.Module:
    """A ReAct agent with one tool."""
    return dspy.ReAct("question -> answer", tools=[look_up])


class _Twice(dspy.Module):
    """Asks the same twice, and once more with a rollout id."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("text -> answer")
        self.last = dspy.Predict("text, number: int -> answer")

    def forward(self, text: str) -> dspy.Prediction:
        answers = [self.ask(text=text).answer, self.ask(text=text).answer]
        answers.append(self.ask(text=text, config={"rollout_id": 7, "temperature": 1.0}).answer)
        answers.append(self.ask(text=text, config={"rollout_id": 8, "temperature": 1.0}).answer)
        return dspy.Prediction(answer=self.last(text=text, number=len(answers)).answer)


def twice() -> dspy.Module:
    """Equal calls, and calls that differ by their rollout id alone."""
    return _Twice()


class _Picky(_Chain):
    """Refuses what its chain made, by its own output type."""

    def forward(self, text: str) -> dspy.Prediction:
        return dspy.Prediction(answer=object(), made=super().forward(text).answer)


def picky() -> dspy.Module:
    """Three model calls and an output that cannot be written."""
    return _Picky()


#: Lets `lingers` go on.
LINGER = threading.Event()


class _Lingers(_Steps):
    """Calls the model once and then waits."""

    def forward(self, text: str) -> dspy.Prediction:
        prediction = super().forward(text)
        LINGER.wait(30)
        return prediction


def lingers() -> dspy.Module:
    """One model call, then nothing until `LINGER` is set."""
    return _Lingers(1)


class _LeavesACall(_Steps):
    """Returns while a thread of its own still calls the model, which then wants to call again."""

    def forward(self, text: str) -> dspy.Prediction:
        attempt = dspy.settings.get("job")

        def later() -> None:
            self.step(text=text, number=1)
            wait_until(lambda: attempt._has_ended, 10)
            with suppress(BaseException):  # it is stopped as any program is
                self.step(text=text, number=2)

        threading.Thread(target=contextvars.copy_context().run, args=(later,), daemon=True).start()
        return self.step(text=text, number=0)


def leaves_a_call() -> dspy.Module:
    """Two model calls at once, of which it awaits only one."""
    return _LeavesACall(1)


class _Parallel(dspy.Module):
    """Calls the model in threads of DSPy's."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("text, number: int -> answer")

    def forward(self, text: str) -> dspy.Prediction:
        parallel = dspy.Parallel(num_threads=3, disable_progress_bar=True)
        asked = [(self.ask, dspy.Example(text=text, number=n).with_inputs("text", "number")) for n in range(3)]
        return dspy.Prediction(answer=parallel(asked)[-1].answer)


def parallel() -> dspy.Module:
    """Three model calls at once."""
    return _Parallel()


class _Clumsy:
    """Fails when it is thrown away."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __del__(self) -> None:
        raise ValueError(self.text)


def _fail(text: str) -> str:
    raise ValueError(text)


async def _forget(text: str) -> None:
    """Leaves a task that fails, and a callback that does."""

    async def later() -> None:
        _fail(text)

    asyncio.get_running_loop().call_soon(_fail, text)
    task = asyncio.create_task(later())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task


class _Blurts(dspy.Module):
    """Says what it was given in every way there is, at last in an error of its own."""

    def forward(self, text: str) -> dspy.Prediction:
        print(text)
        print("given", text, file=sys.stderr)
        sys.stdout.buffer.write(text.encode() + b"\n")
        logging.getLogger("blurts").warning("a literal text, and %s", text)
        logging.getLogger("blurts").warning(f"given {text}")  # noqa: G004  # programs do
        structlog.get_logger("blurts").warning("its own event", text=text)
        warnings.warn(text, stacklevel=1)
        try:
            _fail(text)
        except ValueError:
            logging.getLogger("blurts").exception(text)
            traceback.print_exc()
        thread = threading.Thread(target=_fail, args=(text,))
        thread.start()
        thread.join()
        _Clumsy(text)
        asyncio.run(_forget(text))
        with suppress(Exception):
            dspy.Parallel(num_threads=2, max_errors=1)([(_fail, (text,)), (_fail, (text,))])
        raise RuntimeError(text)


def blurts() -> dspy.Module:
    """Prints, logs, warns of and raises its text, in threads, tasks and destructors."""
    return _Blurts()
