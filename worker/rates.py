"""A provider's limits of calls and tokens a minute, kept by all workers together before the provider has to refuse."""

from __future__ import annotations

import time

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import Storage, storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from dspy_jobs.problems import problem
from dspy_jobs.settings import ModelSettings
from worker.context import AttemptContext, AttemptStopped


class RateReached(AttemptStopped):
    """The fleet has used up what the provider allows for now; `retry_after` is in seconds."""

    def __init__(self, model: str, what: str, retry_after: float) -> None:
        super().__init__(problem("rate_limit", f"The limit of {what} a minute for model {model!r} is reached."))
        self.retry_after = retry_after


def rate_storage(redis_url: str) -> Storage:
    """Where the windows are: the fleet's Redis."""
    url = redis_url.replace("unix://", "redis+unix://", 1) if redis_url.startswith("unix://") else redis_url
    storage = storage_from_string(url, key_prefix="dj:rates")
    assert isinstance(storage, Storage)
    return storage


class ProviderRates:
    """The windows of one model. Thread-safe."""

    def __init__(self, model: str, settings: ModelSettings, storage: Storage) -> None:
        self._model = model
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        calls, tokens = settings.requests_per_minute, settings.tokens_per_minute
        self._calls = RateLimitItemPerMinute(calls, namespace="calls") if calls else None
        self._tokens = RateLimitItemPerMinute(tokens, namespace="tokens") if tokens else None

    def admit(self, attempt: AttemptContext) -> None:
        """Let a call begin.

        Raises:
            RateReached: a window is full.
        """
        try:
            self._admit()
        except RateReached:
            attempt.provider_is_full = True
            raise

    def _admit(self) -> None:
        if self._tokens and not self._limiter.test(self._tokens, self._model):
            raise RateReached(self._model, "tokens", self._seconds_left(self._tokens))
        if self._calls and not self._limiter.hit(self._calls, self._model):
            raise RateReached(self._model, "requests", self._seconds_left(self._calls))

    def spend(self, input_tokens: int | None, output_tokens: int | None) -> None:
        """Count the tokens of an answered call; they are known only afterwards."""
        if self._tokens and (spent := (input_tokens or 0) + (output_tokens or 0)):
            # A window takes no more than it has room for; what is beyond keeps it full all the same.
            room = self._limiter.get_window_stats(self._tokens, self._model).remaining
            self._limiter.hit(self._tokens, self._model, cost=min(spent, max(room, 1)))

    def _seconds_left(self, item: RateLimitItem) -> float:
        return max(0.1, self._limiter.get_window_stats(item, self._model).reset_time - time.time())
