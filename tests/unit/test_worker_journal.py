"""The journal of answered calls: which are equal, which answer goes to which, what is not kept, when it is booked."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import dspy
import pytest
from dspy.lm15 import Config, FunctionTool, ImagePart, Message, Request, Response, TextPart, ThinkingPart, ToolCallPart
from dspy.utils.exceptions import AdapterParseError
from hypothesis import given
from hypothesis import strategies as st

from dspy_jobs.store.books import Bill
from tests.unit.test_worker_tokens import answer, ask
from worker.call_keys import call_key
from worker.context import AttemptContext, AttemptStopped, Call
from worker.journal import COMPRESS_BYTES, Journal, decode, digest_of, encode, mark_useless
from worker.steps import ADAPTERS, LM, a_step, current_rollout_id, when_settled
from worker.tokens import Tokens


def said(text: str) -> Response:
    """An answer of these words."""
    return answer(TextPart(text), input_tokens=1, output_tokens=1)


def record(text: str, request: Request | None = None) -> bytes:
    """A record of the journal."""
    return encode(digest_of("m", request or ask(), None), said(text))


#: Calls that differ in one thing each from `ask()`.
OTHERS = {
    "model": ("other", ask(), None),
    "provider's model": ("m", ask(model="openai/gpt-5"), None),
    "rollout": ("m", ask(), 1),
    "another rollout": ("m", ask(), 2),
    "message": ("m", ask("else"), None),
    "system": ("m", ask(system="Be brief."), None),
    "temperature": ("m", ask(config=Config(temperature=0.5)), None),
    "seed": ("m", ask(config=Config(seed=1)), None),
    "extensions": ("m", ask(config=Config(extensions={"logit_bias": {"1": 2}})), None),
    "format": ("m", ask(config=Config(response_format={"type": "json_object"})), None),
    "tools": ("m", ask(tools=(FunctionTool(name="f", description="", parameters={}),)), None),
}


def test_calls_that_differ_in_anything_are_not_equal() -> None:
    """Whatever shapes an answer is in the digest, and a rollout id is."""
    digests = [digest_of("m", ask(), None), *(digest_of(*call) for call in OTHERS.values())]
    assert len(set(digests)) == len(OTHERS) + 1
    assert digest_of("m", ask(), None) == digests[0]


def test_a_call_that_cannot_be_written_down_is_not_kept() -> None:
    """It is then asked again, no more."""
    request = ask(config=Config(extensions={"huge": 2**70}))
    assert digest_of("m", request, None) is None
    assert encode(None, said("yes")) == b""
    assert Journal([record("yes")]).take(None) is None


def test_equal_calls_take_their_answers_in_order() -> None:
    """The n-th equal call of an attempt gets the n-th answer; when they are used up the model is asked."""
    journal = Journal([record("one"), record("other", ask("else")), record("two")])
    digest = digest_of("m", ask(), None)
    taken = [journal.take(digest) for _ in range(3)]
    assert [found and found.message.parts[0].text for found in taken] == ["one", "two", None]
    assert journal
    assert journal.take(digest_of("m", ask("else"), None)) == said("other")
    assert not journal


@pytest.mark.parametrize("length", [1, COMPRESS_BYTES * 3])
def test_a_record_comes_back_whole(length: int) -> None:
    """An answer of any kind, short or compressed, with what the provider said besides."""
    parts = (
        TextPart("é" * length), ThinkingPart("hm"), ToolCallPart(id="1", name="f", input={"a": [1, None]}),
        ImagePart(url="https://example.org/x.png"),
    )  # fmt: skip
    full = replace(answer(*parts, input_tokens=3, output_tokens=2), provider_data={"id": "x", "n": 1.5})
    digest = digest_of("m", ask(), None)
    written = encode(digest, full)
    assert decode(written) == (digest, full)
    assert len(written) < COMPRESS_BYTES * 2


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=1))
def test_a_damaged_record_is_never_an_answer(position: int, byte: bytes) -> None:
    """A record that was changed or cut is left out, and its call paid again."""
    good = record("yes" * 1000)
    at = position % len(good)
    for damaged in (good[:at] + byte + good[at + 1 :], good[:at]):
        if damaged != good:
            assert not Journal([damaged])


def test_a_record_of_another_release_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose checksum fits and whose content does not."""
    monkeypatch.setattr("worker.journal.response_to_dict", lambda *_, **__: {"unheard": "of"})
    assert not Journal([record("yes"), b""])


# ---- which answers were of use -----------------------------------------------------------------------------------


def verdicts(*runs: Callable[[Callable[[], Any]], Any]) -> list[bool | None]:
    """What is known of each of the calls that the steps make by `asked`, after all of them."""
    calls: list[Call] = []

    def asked() -> None:
        calls.append(Call(0.1, Tokens(1, 1), 0))
        when_settled(calls[-1].settle)

    for run in runs:
        with suppress(AdapterParseError, RuntimeError, AttemptStopped), a_step():
            run(asked)
    asked()
    return [call.is_usable for call in calls]


def unreadable() -> AdapterParseError:
    """What DSPy raises for an answer that it cannot read."""
    return AdapterParseError("ChatAdapter", dspy.Signature("a -> b"), "?")


def _raises(error: BaseException) -> Callable[[Callable[[], None]], None]:
    def run(asked: Callable[[], None]) -> None:
        asked()
        asked()
        raise error

    return run


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([lambda asked: asked()], [True]),
        ([_raises(unreadable())], [False, False]),
        ([_raises(RuntimeError("the second call failed"))], [True, True]),
        ([lambda asked: asked(), _raises(unreadable()), lambda asked: asked()], [True, False, False, True]),
    ],
)
def test_answers_that_could_not_be_read(runs: list[Any], expected: list[bool]) -> None:
    """Both answers of a step are useless if neither could be read; a provider's fault spoils no answer before it."""
    assert verdicts(*runs) == [*expected, True]  # the last call is made outside any step


@pytest.mark.parametrize("name", ["chat", "json", "xml"])
@pytest.mark.parametrize(("text", "is_readable"), [("?", False), (None, True)])
def test_every_adapter_makes_steps(name: str, text: str | None, is_readable: bool) -> None:
    """An answer that the configured adapter can read is of use, and one that neither it nor its fallback can is not."""
    readable = {
        "chat": "[[ ## b ## ]]\nyes\n[[ ## completed ## ]]",
        "json": '{"b": "yes"}',
        "xml": "<b>yes</b>",
    }
    settled: list[bool] = []

    class Engine:
        def complete(self, _: Request) -> Response:
            when_settled(settled.append)
            assert settled == []
            return said(text or readable[name])

    lm = LM("openai/m", engine=Engine(), cache=False)
    with dspy.context(lm=lm, adapter=ADAPTERS[name]()), suppress(AdapterParseError):
        dspy.Predict("a -> b")(a="?")
    assert set(settled) == {is_readable}


def test_an_unreadable_answer_names_dspys_adapter() -> None:
    """Our adapters go by DSPy's names."""
    assert {name: adapter.__name__ for name, adapter in ADAPTERS.items()} == {
        "chat": "ChatAdapter",
        "json": "JSONAdapter",
        "xml": "XMLAdapter",
    }


def test_an_answer_waits_for_its_step() -> None:
    """While it is read nobody knows yet."""
    seen: list[bool | None] = []

    def run(asked: Callable[[], None]) -> None:
        call = Call(0.1, Tokens(1, 1), 0)
        when_settled(call.settle)
        seen.append(call.is_usable)
        asked()

    verdicts(run)
    assert seen == [None]


def test_the_engine_learns_of_rollouts() -> None:
    """By the call's own configuration or the copied model's, and nothing stays behind."""
    seen: list[Any] = []

    class Engine:
        def complete(self, _: Request) -> Response:
            seen.append(current_rollout_id())
            return said("yes")

    lm = LM("openai/m", engine=Engine(), cache=False)
    lm("a")
    lm("a", rollout_id=3, temperature=1.0)
    lm.copy(rollout_id=4, temperature=1.0)("a")
    lm.copy(rollout_id=5)("a", rollout_id=6, temperature=1.0)
    lm("a")
    assert seen == [None, 3, 4, 6, None]
    assert current_rollout_id() is None


# ---- when calls are booked ---------------------------------------------------------------------------------------


class Books:
    """The store's side of booking, as the script has it."""

    def __init__(self, answer: Any = "booked") -> None:
        self.answer = answer
        self.booked: list[bytes] = []
        self.bills: list[Bill] = []

    def __call__(self, bill: Bill, so_far: bytes) -> Any:
        """Take what is new."""
        self.bills.append(bill)
        if self.answer is not None:
            self.booked += [call.journal for call in bill.calls][len(self.booked) + 1 - bill.first :]
        return self.answer


def attempt(books: Books, calls: int = 0, **more: Any) -> AttemptContext:
    """An attempt that has had so many calls answered."""
    context = AttemptContext("job_1", 60, 1000, **more)
    context.resume([], books)
    for number in range(1, calls + 1):
        answered(context, number)
    return context


def answered(context: AttemptContext, number: int, is_usable: bool | None = True) -> Call:
    """One more answered call, whose record is its number."""
    call = Call(0.1, Tokens(1, 1), 5, lambda is_usable: b"%d" % number if is_usable else b"-", is_usable)
    context.after_call(call)
    return call


def test_one_quick_call_is_booked_with_the_attempts_end() -> None:
    """Nothing is sent before a first call, or after a last one."""
    books = Books()
    context = attempt(books)
    context.before_call()
    answered(context, 1)
    assert books.bills == []
    assert [call.journal for call in context.bill().calls] == [b"1"]
    assert [call.journal for call in context.bill(is_last=True).calls] == [b""]


def test_calls_are_booked_in_order_and_once() -> None:
    """Before each further call those before it are; at the end all are named, and only the rest is journaled."""
    books = Books()
    context = attempt(books)
    for number in range(1, 4):
        context.before_call()
        answered(context, number)
    context.book()
    answered(context, 4)
    assert books.booked == [b"1", b"2", b"3"]
    assert (context.bill().first, [call.journal for call in context.bill().calls]) == (1, [b"", b"", b"", b"4"])
    assert (context.usage().calls, context.cost_nanos()) == (4, 20)


def test_a_call_of_which_nothing_is_known_yet_waits() -> None:
    """And those after it, for the books are in order."""
    books = Books()
    context = attempt(books, 1)
    waiting = answered(context, 2, is_usable=None)
    answered(context, 3)
    context.book()
    assert books.booked == [b"1"]
    waiting.settle(False)
    context.book()
    assert books.booked == [b"1", b"-", b"3"]


def test_without_resume_calls_are_booked_and_not_kept() -> None:
    """The books are complete whatever the program's configuration says."""
    books = Books()
    attempt(books, 2, resumes=False).book()
    assert books.booked == [b"", b""]


def test_what_could_not_be_booked_goes_with_the_next_bill() -> None:
    """While Redis is away nothing is lost and nothing stops."""
    books = Books(None)
    context = attempt(books, 2)
    context.before_call()
    assert [call.journal for call in context.bill().calls] == [b"1", b"2"]
    books.answer = "booked"
    context.before_call()
    assert books.booked == [b"1", b"2"]


@pytest.mark.parametrize(("said_", "code"), [("budget_exhausted", "budget_exhausted"), ("stale", "worker_lost")])
def test_a_booking_may_end_an_attempt(said_: str, code: str) -> None:
    """No further call is made when a budget is used up or the job is another worker's by now."""
    with pytest.raises(AttemptStopped) as stopped:
        attempt(Books(said_), 1).before_call()
    assert stopped.value.problem.code == code


def test_nobody_waits_for_a_booking_under_way() -> None:
    """A slow Redis holds up one thread of a program; its calls are in the next bill."""
    entered, release = threading.Event(), threading.Event()
    books = Books()

    def slow(bill: Bill, so_far: bytes) -> Any:
        entered.set()
        release.wait(10)
        return books(bill, so_far)

    context = attempt(books, 1)
    context.send_bill = slow
    housekeeper = threading.Thread(target=context.book)
    housekeeper.start()
    entered.wait(10)
    answered(context, 2)
    context.before_call()
    release.set()
    housekeeper.join(10)
    context.send_bill = books
    context.book()
    assert books.booked == [b"1", b"2"]


def test_the_answer_behind_a_useless_output_is_not_kept() -> None:
    """Whether it is in the journal already or not; that it was given is."""
    fresh = attempt(Books(), 2)
    bill, instead = fresh.bill_of_failure(is_useless=True)
    assert ([call.journal for call in bill.calls], instead) == ([b"1", b"-"], b"")
    assert fresh.bill_of_failure(is_useless=False)[1] == b""
    assert attempt(Books()).bill_of_failure(is_useless=True)[1] == b""
    replayed = attempt(Books())
    replayed.resume([record("a"), record("b")], Books())
    digest = digest_of("m", ask(), None)
    assert decode(replayed.bill_of_failure(is_useless=True)[1]) == (digest, None)
    booked = attempt(Books())
    booked.after_call(Call(0.1, Tokens(1, 1), 5, lambda _: record("a"), True))
    booked.book()
    assert decode(booked.bill_of_failure(is_useless=True)[1]) == (digest, None)


# ---- keys of calls -----------------------------------------------------------------------------------------------


def test_a_call_is_numbered_by_the_answers_before_it() -> None:
    """One that got none has the same number again; useless answers count, and equal calls under way do."""
    digest = digest_of("m", ask(), None)
    assert digest is not None
    journal = Journal([record("a"), mark_useless(digest), record("other", ask("else"))])
    assert (journal.ask(digest), journal.ask(digest)) == (2, 3)
    journal.not_answered(digest)
    assert journal.ask(digest) == 3
    assert Journal().ask(digest) == 0


def test_keys_of_calls() -> None:
    """Another job, question or number is another key; nothing of what is asked can be read from it."""
    keys = {
        call_key("job_1", b"a", 0),
        call_key("job_2", b"a", 0),
        call_key("job_1", b"b", 0),
        call_key("job_1", b"a", 1),
    }
    assert len(keys) == 4
    assert call_key("job_1", b"a", 0) in keys
    assert all(re.fullmatch("[0-9a-f]{40}", key) for key in keys)


def test_a_message_is_a_message() -> None:
    """The digest does not depend on how a request was put together."""
    parts = Request(model="openai/gpt-4o", messages=(Message(role="user", parts=(TextPart(ask().messages[0].text),)),))
    assert digest_of("m", parts, None) == digest_of("m", ask(), None)
