"""Looks at what may hang: shared by all who ask, and waited for only so long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.exceptions import ConnectionError as RedisUnreachable
from redis.exceptions import TimeoutError as RedisTimeout

from api.looks import Look, Seen

#: Long enough that nothing in these tests waits for it to be over.
PATIENT = 60.0


class Server:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        """One question."""
        self.asked += 1
        return await self.answers


def in_a_loop(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test that awaits."""
    asyncio.run(test())  # type: ignore[arg-type]


def test_many_share_one_look() -> None:
    """A hundred who ask at once ask the server once, and hear the same."""

    async def test() -> None:
        server = Server()
        look = Look(server, PATIENT)
        asking = [asyncio.create_task(look.take()) for _ in range(100)]
        await asyncio.sleep(0)
        server.answers.set_result("well")
        assert {seen.known.value for seen in await asyncio.gather(*asking) if seen.known} == {"well"}
        assert server.asked == 1
        await look.take()
        assert server.asked == 2

    in_a_loop(test)


def test_a_hung_look_is_told_as_such_and_not_begun_again() -> None:
    """Everyone hears that it hangs, with what was known before; nobody asks the server once more until it answers."""

    async def test() -> None:
        server = Server()
        server.answers.set_result("well")
        look = Look(server, 0.01)
        assert (await look.take()).is_fresh
        server.answers = asyncio.get_running_loop().create_future()
        for _ in range(50):
            seen = await look.take()
            assert seen.hangs >= 0.01
            assert seen.known is not None
            assert (seen.known.value, seen.is_fresh) == ("well", False)
        assert server.asked == 2
        server.answers.set_result("well again")
        await asyncio.sleep(0)
        assert (await look.take()).known.value == "well again"  # type: ignore[union-attr]

    in_a_loop(test)


def test_silence_is_told_from_its_beginning_over_looks_that_were_given_up() -> None:
    """A server that hangs for a minute has not been silent for as long as the last look alone; an answer ends it."""

    async def test() -> None:
        server = Server()
        look = Look(server, 0.01)
        assert (await look.take()).hangs
        assert look._silent_since is not None
        look._silent_since -= 60
        server.answers.set_exception(RedisTimeout())
        assert isinstance((await look.take()).error, RedisTimeout)
        server.answers = asyncio.get_running_loop().create_future()
        assert (await look.take()).hangs > 60
        server.answers.set_result("well")
        assert (await look.take()).is_fresh
        server.answers = asyncio.get_running_loop().create_future()
        assert (await look.take()).hangs < 60

    in_a_loop(test)


def test_once_waited_for_a_hung_look_holds_nobody_up() -> None:
    """Who asks when the patience is over is answered at once: nothing but turns of the loop is waited for."""

    async def test() -> None:
        look = Look(Server(), 0.3)
        assert (await look.take()).hangs
        loop = asyncio.get_running_loop()
        due: list[object] = []
        loop.call_later(0.3, due.append, "a timer as long as the patience")
        assert (await look.take()).hangs
        assert not due
        await look.end()

    in_a_loop(test)


def test_what_lies_there_already_is_taken_by_who_was_late() -> None:
    """An answer that takes a few turns of the loop is not missed because the loop was held up past the patience."""

    async def test() -> None:
        async def answer() -> str:
            for _ in range(5):
                await asyncio.sleep(0)
            return "well"

        assert (await Look(answer, 0.0).take()).is_fresh

    in_a_loop(test)


def test_a_failed_look_tells_why_and_the_next_begins_anew() -> None:
    """An error is told with what was known before, and the next who asks makes the server be asked again."""

    async def test() -> None:
        server = Server()
        server.answers.set_exception(RedisUnreachable("gone"))
        look = Look(server, PATIENT)
        failed: Seen[str] = await look.take()
        assert (type(failed.error), failed.known, failed.is_fresh) == (RedisUnreachable, None, False)
        server.answers = asyncio.get_running_loop().create_future()
        server.answers.set_result("well")
        assert (await look.take()).is_fresh
        assert server.asked == 2

    in_a_loop(test)


def test_what_nobody_foresaw_is_raised() -> None:
    """A mistake of ours is not taken for a state of the server."""

    async def test() -> None:
        server = Server()
        server.answers.set_exception(KeyError("ours"))
        with pytest.raises(KeyError):
            await Look(server, PATIENT).take()

    in_a_loop(test)
