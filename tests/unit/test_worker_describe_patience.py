"""How long `python -m worker.describe` waits for a Redis that starts at the same moment."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import redis

from worker import describe


class Redis:
    """Comes up after so many tries, and refuses with that error until then."""

    def __init__(self, tries: int, error: redis.RedisError) -> None:
        self.left, self.error = tries, error

    def publish(self) -> None:
        """What has to get through."""
        if self.left:
            self.left -= 1
            raise self.error


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time passes at once: the pauses made so far."""
    made: list[float] = []
    monkeypatch.setattr(describe, "time", SimpleNamespace(sleep=made.append, monotonic=lambda: sum(made)))
    return made


@pytest.mark.parametrize("error", [redis.ConnectionError("refused"), redis.TimeoutError("slow")])
def test_a_redis_that_comes_up_is_waited_for(pauses: list[float], error: redis.RedisError) -> None:
    """It is asked again every second, and in the end told."""
    starting = Redis(3, error)
    describe.patiently(starting.publish, 10)
    assert (starting.left, pauses) == (0, [1, 1, 1])


def test_patience_ends() -> None:
    """Then whoever started this learns why."""
    away = Redis(1000, redis.ConnectionError("refused"))
    with pytest.raises(redis.ConnectionError):
        describe.patiently(away.publish, 10)
    assert away.left == 1000 - 11


def test_a_refusal_is_not_waited_out() -> None:
    """A Redis that answers will answer the same again."""
    with pytest.raises(redis.ResponseError):
        describe.patiently(Redis(1, redis.ResponseError("no")).publish, 10)
