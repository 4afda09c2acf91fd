"""A program's steps: which model answers it could use, and which calls it means to be different though they look alike.

DSPy's adapters ask the model and read its answer. An answer that could not be read must be asked for anew by the job's
next attempt. An adapter may ask twice, as the chat adapter does in JSON after an answer that it could not read; both
answers are of use if it came to an end. DSPy's callbacks would tell the same, at twice the cost of a whole call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

#: Told, once that is known, whether an answer was of use.
Settle = Callable[[bool], None]

_waiting: ContextVar[list[Settle] | None] = ContextVar("waiting", default=None)
_rollout_id: ContextVar[Any] = ContextVar("rollout_id", default=None)


def when_settled(settle: Settle) -> None:
    """Have `settle` called when the step that asked is over; at once for a call outside any step."""
    waiting = _waiting.get()
    if waiting is None:
        settle(True)
    else:
        waiting.append(settle)


@contextmanager
def a_step() -> Iterator[None]:
    """One step: its answers are of use unless it ends because they could not be read."""
    waiting: list[Settle] = []
    before = _waiting.set(waiting)
    is_usable = True
    try:
        yield
    except AdapterParseError:
        is_usable = False
        raise
    finally:
        _waiting.reset(before)
        for settle in waiting:
            settle(is_usable)


def current_rollout_id() -> Any:
    """The `rollout_id` of the model call under way. DSPy takes it out of the request that the engine gets."""
    return _rollout_id.get()


class LM(dspy.LM):
    """A model that tells its engine the `rollout_id` of a call."""

    def __call__(self, prompt: Any = None, *, messages: Any = None, **kwargs: Any) -> Any:
        """One call."""
        before = _rollout_id.set(kwargs.get("rollout_id", self.kwargs.get("rollout_id")))
        try:
            return super().__call__(prompt, messages=messages, **kwargs)
        finally:
            _rollout_id.reset(before)


# They keep their names, for errors tell them.


class ChatAdapter(dspy.ChatAdapter):
    """DSPy's, each of whose calls is a step."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One step."""
        with a_step():
            return super().__call__(*args, **kwargs)


class JSONAdapter(dspy.JSONAdapter):
    """DSPy's, each of whose calls is a step."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One step."""
        with a_step():
            return super().__call__(*args, **kwargs)


class XMLAdapter(dspy.XMLAdapter):
    """DSPy's, each of whose calls is a step."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One step."""
        with a_step():
            return super().__call__(*args, **kwargs)


#: Adapters by the names the configuration uses.
ADAPTERS: dict[str, type[dspy.Adapter]] = {"chat": ChatAdapter, "json": JSONAdapter, "xml": XMLAdapter}
