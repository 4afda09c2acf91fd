"""Everyone who is told what becomes of jobs here: the metrics, Flower, the log and the traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from dspy_jobs.logs import bound_ids
from dspy_jobs.store.flights import Answered
from dspy_jobs.store.records import Claim, NotClaimed, Taken
from dspy_jobs.telemetry import Span
from worker.instruments import Unmeasured
from worker.job_events import JobEvents
from worker.job_lines import Ended, ids_of, tell_answered, tell_attempt, tell_expired
from worker.reuse import Job
from worker.spans import attempt_span, jobs_answered


@dataclass
class Witnesses:
    """Told of each step of a job, after it was made known to the ledger where it changes something there."""

    worker_id: str
    shows_content: bool = False
    """Whether the log may show what callers gave and got."""
    instruments: Unmeasured = field(default_factory=Unmeasured)
    events: JobEvents = field(default_factory=JobEvents)
    """What becomes of the jobs, for Flower."""

    def received(self, ids: Sequence[str], taken: Sequence[Taken]) -> None:
        """A message for these jobs came to this thread, which took some of them."""
        self.events.received(ids, taken)

    @contextmanager
    def attempt(self, claim: Claim, job: Job) -> Iterator[tuple[Span, dict[str, object]]]:
        """Around an attempt: gives its span, and the ids that lines from within it bear."""
        self.instruments.started(claim)
        self.events.started(claim)
        ids = ids_of(claim.id, claim.batch, claim.attempt, job.request)
        with bound_ids(ids), attempt_span(claim, job, self.worker_id) as span:
            yield span, ids

    def ended(self, ended: Ended, answer: bool | str) -> None:
        """An attempt's end was made known; `answer` is what the ledger said to it."""
        self.instruments.settled(ended.claim, ended.settlement, answer)
        self.events.ended(ended.claim, ended.settlement, answer)
        tell_attempt(ended, answer, shows_content=self.shows_content)

    def answered(self, jobs: Sequence[Job], found: Sequence[Answered], answers: Sequence[str]) -> None:
        """Some of the jobs were to end with outputs made before; `answers` is what the ledger said to each of these."""
        by_id = {job.id: job for job in jobs}
        for made, answer in zip(found, answers, strict=True):
            job = by_id[made.job_id]
            self.instruments.answered(job.taken, answer)
            self.events.answered(made, answer)
            tell_answered(job, made, answer, shows_content=self.shows_content)
        finished = [made for made, answer in zip(found, answers, strict=True) if answer == "finished"]
        jobs_answered(jobs, finished, self.worker_id)

    def not_started(self, job: Job, refused: NotClaimed) -> None:
        """A taken job was not claimed; if it was too late for it, it has ended."""
        self.events.not_started(job.id, refused)
        if refused.reason == "expired":
            tell_expired(job)

    def message_over(self, handed_back: int) -> None:
        """This thread is done with its message; so many of its jobs went back to the queue."""
        self.events.message_over(handed_back)
