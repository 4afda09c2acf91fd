"""Which answers a program could use: DSPy tells of its predictors' runs, and each model call belongs to one.

An answer that could not be read must be asked for anew by the next attempt. A predictor may ask twice, as DSPy's chat
adapter does in JSON after an answer that it could not read; both answers are of use if the run came to an end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import AdapterParseError

#: Told, once that is known, whether an answer was of use.
Settle = Callable[[bool], None]


class Step:
    """One run of a predictor: its calls wait to learn whether their answers were of use."""

    def __init__(self, call_id: str, outer: Step | None) -> None:
        self.call_id = call_id
        self.outer = outer
        self.waiting: list[Settle] = []


_step: ContextVar[Step | None] = ContextVar("step", default=None)
_rollout_id: ContextVar[Any] = ContextVar("rollout_id", default=None)


def current_rollout_id() -> Any:
    """The `rollout_id` of the model call under way. DSPy takes it out of the request that the engine gets."""
    return _rollout_id.get()


def when_settled(settle: Settle) -> None:
    """Have `settle` called when the predictor that asked has run; at once where no predictor asked."""
    if step := _step.get():
        step.waiting.append(settle)
    else:
        settle(True)


# ruff: noqa: ARG002  # the callbacks' parameters are DSPy's


class PredictorWatch(BaseCallback):
    """Follows the runs of predictors, in every thread of a program."""

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A predictor's run begins."""
        if isinstance(instance, dspy.Predict):
            _step.set(Step(call_id, _step.get()))

    def on_module_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """It is over: its answers were of use unless they could not be read."""
        step = _step.get()
        if step is None or step.call_id != call_id:
            return
        _step.set(step.outer)
        for settle in step.waiting:
            settle(not isinstance(exception, AdapterParseError))


class RolloutWatch(BaseCallback):
    """Notes the `rollout_id` of each model call; belongs to a `dspy.LM`, whose copies keep it."""

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """A call begins."""
        given = {**instance.kwargs, **inputs.get("kwargs", {})}
        _rollout_id.set(given.get("rollout_id"))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """It is over."""
        _rollout_id.set(None)
