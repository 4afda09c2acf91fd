"""Both stores at a Redis that forgets scripts, refuses or is asked many things at once; keys as Lua spells them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from dspy_jobs import names
from dspy_jobs.states import Priority
from dspy_jobs.store import AsyncStore, SyncStore, async_store, connect_async, operations
from dspy_jobs.store.script import _needed
from tests.integration.store_scene import LIFETIMES, MANY, QUEUE, STEP


def _submit(number: int) -> operations.Operation[tuple[bool, int]]:
    return operations.submit_job(f"job_{number:03}", b"{}", QUEUE, STEP, {"program": "qa"}, LIFETIMES, MANY)


def _with_async_store(url: str, act: Callable[[AsyncStore], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        store = AsyncStore(connect_async(url))
        try:
            return await act(store)
        finally:
            await store.close()

    return asyncio.run(run())


def test_the_sync_store_goes_on_when_redis_forgot_its_scripts(store: SyncStore) -> None:
    """After SCRIPT FLUSH single operations and pipelines run, each exactly once."""
    for number in range(2):
        store.redis.script_flush()
        assert store.run(_submit(number))[0]
    store.redis.script_flush()
    answers = store.run_all([_submit(2), operations.read_queues([QUEUE]), _submit(3)])
    assert [answers[0][0], answers[1][0].queued, answers[2][0]] == [True, 3, True]
    assert store.run(operations.read_queues([QUEUE]))[0].queued == 4


def test_the_async_store_goes_on_when_redis_forgot_its_scripts(store: SyncStore, redis_url: str) -> None:
    """After SCRIPT FLUSH every operation that was gathered runs exactly once and answers its own caller."""

    async def act(own: AsyncStore) -> list[Any]:
        await own.run(_submit(0))
        await own.redis.script_flush()
        return await asyncio.gather(*(own.run(_submit(number)) for number in range(1, 300)))

    answers = _with_async_store(redis_url, act)
    assert all(accepted for accepted, _ in answers)
    assert store.run(operations.read_queues([QUEUE]))[0].queued == 300
    assert len(set(store.redis.zrange(names.queue_waiting(QUEUE, STEP), 0, -1))) == 300


def test_gathered_operations_answer_each_caller_its_own(store: SyncStore, redis_url: str) -> None:
    """Many different operations at once get the answers they would get alone, over few connections."""
    for number in range(200):
        store.run(_submit(number))

    async def act(own: AsyncStore) -> tuple[list[Any], int]:
        before = len(await own.redis.client_list())
        wanted = [own.run(operations.read_jobs([f"job_{number:03}", "job_x"])) for number in range(200)]
        answers = await asyncio.gather(*wanted)
        return answers, len(await own.redis.client_list()) - before

    answers, more_connections = _with_async_store(redis_url, act)
    assert [answer[0].id for answer in answers] == [f"job_{number:03}" for number in range(200)]
    assert {answer[1] for answer in answers} == {None}
    assert more_connections <= 1, "two at most, of which one was there"


def test_a_refused_operation_fails_its_own_caller_alone(store: SyncStore, redis_url: str) -> None:
    """Between operations that succeed, one that Redis refuses raises for its caller; nobody else notices."""
    store.redis.set(names.job("job_bad"), "not a hash")

    async def act(own: AsyncStore) -> list[Any]:
        bad = own.run(operations.cancel_job("job_bad"))
        good = [own.run(_submit(number)) for number in range(4)]
        return await asyncio.gather(*good[:2], bad, *good[2:], return_exceptions=True)

    answers = _with_async_store(redis_url, act)
    assert isinstance(answers.pop(2), ResponseError)
    assert all(accepted for accepted, _ in answers)
    store.redis.delete(names.job("job_bad"))


def test_an_abandoned_operation_does_not_disturb_the_others(store: SyncStore, redis_url: str) -> None:
    """A caller that gives up while its operation is under way leaves the rest of the flight alone."""

    async def act(own: AsyncStore) -> list[Any]:
        tasks = [asyncio.create_task(own.run(_submit(number))) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, abandoned, last = _with_async_store(redis_url, act)
    assert first[0]
    assert last[0]
    assert isinstance(abandoned, asyncio.CancelledError)


def test_a_refused_operation_of_a_pipeline_is_raised(store: SyncStore) -> None:
    """A pipeline with an operation that Redis refuses raises, and the others have run."""
    store.redis.set(names.job("job_bad"), "not a hash")
    with pytest.raises(ResponseError):
        store.run_all([_submit(0), operations.cancel_job("job_bad"), _submit(1)])
    assert store.run(operations.read_queues([QUEUE]))[0].queued == 2
    store.redis.delete(names.job("job_bad"))


def test_lua_spells_keys_as_names_does(store: SyncStore) -> None:
    """The key functions of the scripts and those of `names` give the same keys."""
    spell = (
        "return {job_key('job_1'), batch_key('batch_1'), queue_key('q'), held_key('w'), cancel_key('w'), "
        "outcome_key('job_1'), queue_list('q', '0'), queue_list('q', '3'), queue_list('q', '6')}"
    )
    spelled = store.redis.eval("\n\n".join([*_needed(spell), spell]), 0)
    assert [key.decode() for key in spelled] == [
        names.job("job_1"),
        names.batch("batch_1"),
        names.queue_numbers("q"),
        names.worker_held("w"),
        names.worker_cancel("w"),
        names.outcome("job_1"),
        *(names.queue_list("q", priority.step) for priority in Priority),
    ]


def test_nobody_who_asks_is_left_waiting(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks again at the very moment in which the last round trip allowed has ended gets a new one."""
    monkeypatch.setattr(async_store, "MOST_FLIGHTS", 1)

    async def act(own: AsyncStore) -> list[Any]:
        async with asyncio.timeout(30):
            return [await own.run(operations.read_queues(["dspy.q"])) for _ in range(3)]

    assert len(_with_async_store(redis_url, act)) == 3
