"""Which values labels may have: names that are or were configured, and codes; anything else is `other`.

So the number of series is bounded by what an operator has written down, whatever stands in Redis. A name stays known
once it was configured (`dj:known_names`): its totals would otherwise move to `other` and back, and look as if they had
happened then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterable
from typing import cast

from api.catalogue import Program
from api.resources import Resources
from dspy_jobs import names
from dspy_jobs.counted import Work
from dspy_jobs.measures import OTHER
from dspy_jobs.problems import CODES
from dspy_jobs.store.counted import names_of


class Labels:
    """The names that may be shown, as `store.counted.names_of` writes them."""

    def __init__(self, known_names: Collection[str]) -> None:
        self._known = known_names

    def model(self, name: str) -> str:
        """A model's name."""
        return name if f"model {name}" in self._known else OTHER

    def queue(self, name: str) -> str:
        """A queue's name: one of a known model."""
        return name if self.model(name.removeprefix(names.queue(""))) != OTHER else OTHER

    def work(self, work: Work) -> Work:
        """What jobs are told apart by; '' stands for no variant."""
        program, model, variant = work
        is_known = not variant or f"program {program}|{variant}" in self._known
        return Work(
            program if f"program {program}" in self._known else OTHER,
            self.model(model),
            variant if is_known else OTHER,
        )

    def code(self, code: str) -> str:
        """A problem's code."""
        return code if code in CODES else OTHER


async def labels_of(resources: Resources) -> Labels:
    """What may be shown now: what ever was configured, what is configured here, and what workers have described."""
    kept = cast("Awaitable[set[bytes]]", resources.store.redis.smembers(names.KNOWN_NAMES))
    described = _described_names(await resources.catalogue.all())
    return Labels({name.decode() for name in await kept}.union(names_of(resources.settings), described))


def _described_names(programs: Iterable[Program]) -> list[str]:
    described = [program.description for program in programs]
    variants = [f"program {program.name}|{variant}" for program in described for variant in program.variants]
    return [f"program {program.name}" for program in described] + variants


def expected_work(programs: Iterable[Program]) -> list[Work]:
    """What described programs will count unless callers ask for other models: shown as 0 from the start."""
    described = [program.description for program in programs]
    arms = [Work(p.name, arm.model, variant) for p in described for variant, arm in p.variants.items()]
    return arms + [Work(program.name, program.model, "") for program in described if not program.variants]
