"""The running autoscaler: leads if nobody else does, reads, decides, and has the backend act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from autoscaler.cadence import Cadence, Due, Periods
from autoscaler.decision import decide
from autoscaler.fleet import Backend, BackendError, Fleet
from autoscaler.gauges import Gauges
from autoscaler.metric import Readings, metrics
from autoscaler.reading import Observer, Reading
from autoscaler.recommendation import Size, recommend_all, tolerances_of
from autoscaler.spec import ScalingSpec
from autoscaler.state import Decision, Observation, State

log = structlog.get_logger("autoscaler")


class Leadership(Protocol):
    """Says which of several autoscalers acts."""

    @property
    def is_held(self) -> bool:
        """Whether this one may act at this moment."""
        ...

    @property
    def leader(self) -> str | None:
        """Where another one leads; None if none does, or that is not known."""
        ...

    @property
    def holder(self) -> str | None:
        """Who that is, for people."""
        ...

    def keep(self) -> bool:
        """Take or renew the leadership; whether this one leads."""
        ...

    def give_up(self) -> None:
        """Let another one lead."""
        ...


@dataclass(frozen=True)
class Look:
    """What the loop saw and made of it; the decision is not yet carried out."""

    fleet: Fleet
    reading: Reading
    decision: Decision


class Autoscaler:
    """One ScaledObject's loop. ``step`` is called several times a second and does what is due."""

    def __init__(
        self,
        scaling: ScalingSpec,
        observer: Observer,
        backend: Backend,
        leadership: Leadership,
        gauges: Gauges,
        clock: Callable[[], float],
        tell: Callable[[Look], None] | None = None,
    ) -> None:
        """``tell`` makes it a dry run: it is told of each decision, also of those that change nothing."""
        self._scaling, self._observer, self._backend = scaling, observer, backend
        self._leadership, self._gauges, self._clock = leadership, gauges, clock
        self._tell = tell
        self._term: Term | None = None
        self._stands_by_for: str | None = None

    @property
    def leads(self) -> bool:
        """Whether this process scales."""
        return self._term is not None

    def obey(self, scaling: ScalingSpec, observer: Observer) -> None:
        """Decide by these settings and readings from now on, with the memory there is."""
        self._scaling, self._observer = scaling, observer
        if self._term is not None:
            self._term.obey(scaling, self._clock())

    def step(self) -> bool:
        """Do what is due; whether a decision was made without any failure.

        Raises:
            Misconfigured: workers cannot start as they are configured.
        """
        if not self._leadership.keep():
            self._stand_by()
            return False
        try:
            return self._lead(self._term or self._begin())
        except BackendError as error:
            log.warning("fleet_unreachable", error=str(error))
            return False

    def _stand_by(self) -> None:
        if self._term is not None:
            log.warning("lease_lost")
        self._term = None
        self._gauges.leads(False)
        self._tell_who_leads()
        self._backend.stand_by(self._leadership.leader)

    def _tell_who_leads(self) -> None:
        """Once for each leader: who waits in silence looks as if it worked."""
        leader = self._leadership.holder
        if leader is not None and leader != self._stands_by_for:
            log.warning("standing_by", leader=leader)
            self._stands_by_for = leader

    def _begin(self) -> Term:
        """Begin to lead: with the workers there are, and no memory but that they were wanted."""
        self._backend.take_over()
        self._stands_by_for = None
        self._term = Term(self._scaling, self._clock())
        self._gauges.leads(self._tell is None)
        if self._tell is None:
            log.info("leading", polling_seconds=self._scaling.polling_interval)
        else:
            log.info("watching", polling_seconds=self._scaling.polling_interval)
        return self._term

    def _lead(self, term: Term) -> bool:
        self._backend.tend()
        due, lateness = term.due(self._clock())
        if not (due.keda or due.hpa):
            return False
        self._gauges.late(lateness)
        return self._tick(term, due)

    def _tick(self, term: Term, due: Due) -> bool:
        fleet = self._backend.fleet()
        reading = self._observer.observe()
        term.tell_failures(reading)
        decision = term.decide(reading, fleet, due, self._clock())
        self._show(reading, fleet, decision)
        if self._tell:
            self._tell(Look(fleet, reading, decision))
        # Reading may have taken long: an old leader must not act beside a new one.
        if not self._leadership.is_held:
            return False
        if decision.replicas != fleet.replicas:
            self._scale(fleet.replicas, decision, reading)
        term.state = decision.state
        return not reading.problems

    def _scale(self, before: int, decision: Decision, reading: Reading) -> None:
        self._backend.scale(decision.replicas)
        self._gauges.scaled(before, decision.replicas, decision.reason)
        log.info(
            "scaled",
            **{"from": before, "to": decision.replicas, "reason": decision.reason},
            metrics=dict(reading.values),
            waiting=reading.details.get("waiting"),
            inflight=reading.details.get("inflight"),
        )

    def _show(self, reading: Reading, fleet: Fleet, decision: Decision) -> None:
        readings = Readings(self._scaling, reading.values, decision.state.failures)
        size = Size(fleet.replicas, fleet.replicas, fleet.replicas if fleet.ready is None else fleet.ready)
        seen = metrics(readings, size.replicas, size.ready)
        self._gauges.read(reading)
        self._gauges.fleet(fleet)
        raw = recommend_all(seen, size, tolerances_of(self._scaling.behavior))
        self._gauges.decided(decision.replicas, raw, readings.any_fallen)


class Term:
    """What a leader remembers while it leads."""

    def __init__(self, scaling: ScalingSpec, now: float) -> None:
        self._scaling = scaling
        self._cadence = Cadence(Periods.local(scaling.polling_interval), now)
        self._failing: frozenset[str] = frozenset()
        self._is_first = True
        self.state = State(created=now)

    def obey(self, scaling: ScalingSpec, now: float) -> None:
        """Go on with other settings, at once and in their rhythm."""
        self._scaling = scaling
        self._cadence = Cadence(Periods.local(scaling.polling_interval), now)

    def due(self, now: float) -> tuple[Due, float]:
        """Which loops are due, and how many seconds late."""
        lateness = max(0.0, now - self._cadence.next_time)
        return self._cadence.due(now), lateness

    def decide(self, reading: Reading, fleet: Fleet, due: Due, now: float) -> Decision:
        """The decision upon a reading."""
        if self._is_first and fleet.replicas > 0:
            # Somebody wanted the workers found here; a restart must not shrink the fleet before the cooldown does.
            self.state = replace(self.state, last_active=now)
        self._is_first = False
        # The status is the size asked for: workers that start slowly must not be asked for twice.
        seen = Observation(
            reading.values, fleet.replicas, status=fleet.replicas, ready=fleet.ready, keda_due=due.keda, hpa_due=due.hpa
        )
        return decide(self._scaling, self.state, seen, now)

    def tell_failures(self, reading: Reading) -> None:
        """Log each trigger once when it begins to fail and once when it is well again."""
        failing = frozenset(reading.problems)
        for name in sorted(failing - self._failing):
            log.warning("metric_failed", trigger=name, problem=reading.problems[name])
        for name in sorted(self._failing - failing):
            log.info("metric_recovered", trigger=name)
        self._failing = failing
