"""`POST /v1/batches?dry_run=true`: what a batch would come to. Items are checked as for a batch; nothing is stored.

How its numbers are made is said in `dspy_jobs/estimates.py`. Where an item is assigned a variant by chance, because it
has no `custom_id`, the estimate's assignment stands for those that a batch would make.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api.answers import json_answer
from api.batch_body import check_batch, read_batch_body
from api.batch_limits import limits_of
from api.items import CheckedItem, ItemChecker, no_items
from api.prices import prices_of
from api.resources import Resources, resources_of
from api.routing import Routing
from dspy_jobs import money, names
from dspy_jobs.cache_key import KeySubject, cache_key, subject_of
from dspy_jobs.costs import book_day
from dspy_jobs.estimates import METRICS, Forecast, History, Load, Pace, forecast, seconds
from dspy_jobs.store.operations import Route, read_queues
from dspy_jobs.submissions import BatchSubmission

#: Days of the books, today included, that tell what jobs use.
_DAYS = 7

#: Keys asked for in one round trip.
_GROUP = 500

#: Fields of the books looked at in one step of Redis.
_STEP = 1000


async def estimate_batch(request: Request) -> Response:
    """What the batch would come to."""
    resources = resources_of(request)
    content, read = await read_batch_body(request, resources.settings.limits)
    submission, routing = await check_batch(request, resources, content)
    await limits_of(resources, submission.limits, routing.models)
    survey = Survey(resources, routing, submission)
    version = routing.version(submission.variant or "")
    items = ItemChecker(resources.settings.limits, routing, version, survey.add)
    async for _ in read(items):
        await survey.look_up_full()
    if not items.total and not items.invalid:
        raise no_items()
    await survey.look_up()
    return json_answer(await _answer(resources, submission, items, survey))


@dataclass
class Survey:
    """The right items of a batch: which of them have an answer already, and what the others are."""

    resources: Resources
    routing: Routing
    submission: BatchSubmission
    loads: defaultdict[Route, Load] = field(default_factory=lambda: defaultdict(Load))
    """The jobs that would run."""
    valid: int = 0
    can_ask: bool = True
    """Whether the cache could be asked so far."""
    _subjects: dict[Route, KeySubject | None] = field(default_factory=dict)
    _times: dict[str, int] = field(default_factory=dict)
    """How many items have each key."""
    _stored: set[str] = field(default_factory=set)
    """Keys with an answer."""
    _group: list[tuple[str, Route, int]] = field(default_factory=list)
    """Items yet to be looked up: key, route, bytes of the inputs."""

    def __post_init__(self) -> None:
        settings, name = self.resources.settings, self.routing.program.description.name
        configured, wanted = settings.programs.get(name), self.submission.cache_options()
        shares = settings.cache.enabled and (configured is None or configured.cache)
        self._mode = wanted.get("mode", "default") if shares else "off"
        self._max_age, self._namespace = wanted.get("max_age_seconds"), wanted.get("namespace", "")

    def add(self, item: CheckedItem) -> None:
        """Take an item that is right."""
        self.valid += 1
        size = len(orjson.dumps(item.inputs))
        key = self._key(item)
        if key is None:
            self.loads[item.route].add(size)
            return
        times = self._times.get(key, 0)
        self._times[key] = times + 1
        if not times:
            self._group.append((key, item.route, size))

    def _key(self, item: CheckedItem) -> str | None:
        """What the job's answer would be stored under; None if it neither takes nor shares one."""
        if self._mode in ("off", "refresh"):
            return None
        try:
            subject = self._subjects[item.route]
        except KeyError:
            subject = self._subjects[item.route] = self._subject(item.route)
        if subject is None:
            return None
        try:
            return cache_key(subject, item.inputs, self.routing.program.description.input_schema)
        except ValueError:  # the worker will find none either
            return None

    def _subject(self, route: Route) -> KeySubject | None:
        settings, program = self.resources.settings, self.routing.program.description.name
        model, configured = settings.models.get(route.model), settings.programs.get(program)
        if model is None:
            return None
        arm = configured.variants.get(route.variant) if configured else None
        parameters = self.submission.parameters
        layers = (arm.parameters if arm else {}, parameters.model_dump(exclude_none=True) if parameters else {})
        version = self.routing.version(route.variant)
        return subject_of(route.model, model, version, route.variant, self._namespace, *layers)

    async def look_up_full(self) -> None:
        """Look up what has gathered, if it is worth a round trip."""
        if len(self._group) >= _GROUP:
            await self.look_up()

    async def look_up(self) -> None:
        """Look up what has gathered. A cache that failed once is not asked again."""
        group, self._group = self._group, []
        found = None
        if group and self.can_ask:
            found = await self.resources.answers.find([key for key, _, _ in group], self._max_age)
            self.can_ask = found is not None
        self._stored |= found or set()
        for key, route, size in group:
            if key not in self._stored:
                self.loads[route].add(size)

    @property
    def cached(self) -> int | None:
        """Items whose answer is stored; None where the cache cannot be asked."""
        return sum(self._times[key] for key in self._stored) if self.can_ask else None

    @property
    def repeated(self) -> int:
        """Items equal to an earlier one whose answer is not stored: they will share its run."""
        return 0 if self.only_stored else sum(n - 1 for key, n in self._times.items() if key not in self._stored)

    @property
    def only_stored(self) -> bool:
        """Whether only stored answers are wanted: the other jobs fail and cost nothing."""
        return self._mode == "only"


async def _answer(
    resources: Resources, submission: BatchSubmission, items: ItemChecker, survey: Survey
) -> dict[str, Any]:
    program, notes = survey.routing.program.description.name, Notes()
    total, time = Forecast(), _Time()
    for route, load in () if survey.only_stored else survey.loads.items():
        work = await _forecast(resources, submission, program, route, load, notes)
        total += work
        time.add(route, load, work)
    _say_of_cache(survey, notes)
    low = total.low if survey.can_ask or total.low is None else 0
    _say_of_limit(submission, low, notes)
    return {
        "object": "batch_estimate",
        "program": program,
        "model": survey.routing.default_model,
        "valid": survey.valid,
        "invalid": items.invalid,
        "cached": survey.cached,
        "repeated": survey.repeated,
        "est_input_tokens": total.input_tokens,
        "est_output_tokens": total.output_tokens,
        "est_cost_usd": {"low": _usd(low), "high": _usd(total.high)},
        "est_seconds": await time.total(resources, notes),
        "error_count": items.error_count,
        "errors": items.errors,
        "notes": notes.texts,
    }


def _say_of_cache(survey: Survey, notes: Notes) -> None:
    if not survey.can_ask:
        notes.add("The cache could not be asked: tokens and time are those of an empty cache, the cost begins at 0.")
    elif survey.only_stored and (missing := survey.valid - (survey.cached or 0)):
        notes.add(f"{missing} jobs would fail as not_cached, for only stored answers are wanted.")


def _say_of_limit(submission: BatchSubmission, low: float | None, notes: Notes) -> None:
    most = submission.limits.max_cost_usd if submission.limits else None
    if most is not None and low is not None and money.nanos(most) < low:
        given, least = money.format_dollars(money.nanos(most)), money.format_dollars(round(low))
        notes.add(
            f"The batch of {submission.program} would probably be paused before its end: max_cost_usd is {given}, and "
            f"the least that is estimated is {least}."
        )


class Notes:
    """What a reader of the numbers should know, each thing once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        """Add a thing to know."""
        if text not in self.texts:
            self.texts.append(text)


def _usd(nanos: float | None) -> float | None:
    return None if nanos is None else money.dollars(round(nanos))


async def _forecast(
    resources: Resources, submission: BatchSubmission, program: str, route: Route, load: Load, notes: Notes
) -> Forecast:
    history, prices = await _history(resources, program, route), await prices_of(resources, route.model)
    if history is None:
        notes.add(
            f"No run of {program} on {route.model} in the last {_DAYS} days: guessed by the size of the inputs, with "
            "one call a job."
        )
    if prices is None and (history is None or history.cost_nanos is None):
        notes.add(f"The price of the model {route.model} is not known.")
    return forecast(load, history, prices, _max_tokens(resources, submission, program, route))


def _max_tokens(resources: Resources, submission: BatchSubmission, program: str, route: Route) -> int | None:
    """The most tokens a call may answer: the job's limit, else the variant's, else the model's."""
    settings = resources.settings
    configured, model = settings.programs.get(program), settings.models.get(route.model)
    arm = configured.variants.get(route.variant) if configured else None
    layers = (
        submission.parameters.model_dump() if submission.parameters else {},
        arm.parameters if arm else {},
        model.parameters if model else {},
    )
    found = (layer["max_tokens"] for layer in layers if layer.get("max_tokens") is not None)
    given = next(found, None)
    return given if isinstance(given, int) and given > 0 else None


async def _history(resources: Resources, program: str, route: Route) -> History | None:
    """What runs of the variant used; of all variants of the program on the model where this one has not run."""
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    redis = resources.store.redis
    seconds_now, _ = await redis.time()
    today = datetime.fromtimestamp(seconds_now, UTC).date()
    days = [book_day(today - timedelta(days=ago)) for ago in range(_DAYS)]
    for key in [key(day) for day in days for key in (names.costs, names.closed_costs)]:
        async for name, value in redis.hscan_iter(key, match=f"{route.model}|*|{program}|*", count=_STEP):
            # The pattern's stars go across parts, so a client named as the program would match, too.
            _, variant, of, _, metric = name.decode().split("|")
            if of == program and metric in METRICS:
                sums[variant][metric] += int(value)
    every = sum(sums.values(), Counter[str]())
    return History.of(sums[route.variant]) or History.of(every)


class _Time:
    """How long the queues will take, side by side."""

    def __init__(self) -> None:
        self._jobs: Counter[str] = Counter()
        self._work: defaultdict[str, Forecast] = defaultdict(Forecast)

    def add(self, route: Route, load: Load, work: Forecast) -> None:
        """Add jobs of a route."""
        self._jobs[route.model] += load.jobs
        self._work[route.model] += work

    async def total(self, resources: Resources, notes: Notes) -> float | None:
        """Seconds until the last queue is through; None where one of them cannot be told."""
        longest = 0.0
        for model, jobs in self._jobs.items():
            pace = await _pace(resources, model, notes)
            taken = seconds(jobs, self._work[model], pace, resources.settings.models.get(model))
            if taken is None:
                return None
            longest = max(longest, taken)
        return round(longest, 1)


async def _pace(resources: Resources, model: str, notes: Notes) -> Pace:
    queue = names.queue(model)
    numbers = (await resources.store.run(read_queues([queue])))[0]
    service_ms = await cast(
        "Awaitable[bytes | None]", resources.store.redis.hget(names.queue_numbers(queue), "service_ms")
    )
    threads = await resources.capacity.slots(queue)
    if not threads:
        notes.add(f"No worker serves the model {model} now.")
    elif service_ms is None:
        notes.add(f"No run on the model {model} was measured yet, so the time is not known.")
    if numbers.gate is not None:
        notes.add(f"The queue of the model {model} is closed: {numbers.gate.reason}.")
    return Pace(numbers.queued, threads, None if service_ms is None else float(service_ms) / 1000)
