"""The ScaledObject that is obeyed: its file, the command line's bounds over it, and edits of it while it is obeyed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from autoscaler.gauges import Gauges
from autoscaler.reading import Observer
from autoscaler.scaled_object import ScaledObject, ScaledObjectError, read_scaled_object
from autoscaler.sources import UnusableTrigger
from autoscaler.spec import ScalingSpec
from dspy_jobs.settings import ConfigurationError, Settings

log = structlog.get_logger("autoscaler")


class _Stamp(NamedTuple):
    """What another content of a file shows in; editors replace a file or write over it."""

    inode: int
    size: int
    modified_ns: int


class ScaledObjectFile:
    """The file named on the command line or in the settings, whose path is relative to theirs."""

    def __init__(self, options: argparse.Namespace, settings: Settings) -> None:
        base = settings.source.parent if settings.source else Path.cwd()
        self.path: Path = options.scaled_object or base / settings.autoscaler.scaled_object
        self._stamp: _Stamp | None = None

    @property
    def has_changed(self) -> bool:
        """Whether it is another file than the one read last."""
        return self._look() != self._stamp

    def read(self) -> ScaledObject:
        """The ScaledObject in it now.

        Raises:
            ScaledObjectError: it cannot be used.
            ConfigurationError: it cannot be read.
        """
        self._stamp = self._look()
        try:
            return read_scaled_object(self.path.read_text(encoding="utf-8"), str(self.path))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigurationError(f"{self.path}: cannot be read: {reason}; name one with --scaled-object") from None

    def _look(self) -> _Stamp | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def bounded(scaling: ScalingSpec, options: argparse.Namespace, kind: str) -> ScalingSpec:
    """The settings with the command line's bounds over them; checked again, since they may contradict the file's.

    A smaller maximum also lowers the file's minimum, unless one is given, and the other way round.
    """
    low = scaling.min_replica_count if options.min is None else options.min
    high = scaling.max_replica_count if options.max is None else options.max
    if options.at_most is not None:
        high = min(high, options.at_most)
    if options.min is None:
        low = min(low, high)
    if options.max is None:
        high = max(low, high)
    given = {name: getattr(scaling, name) for name in ScalingSpec.model_fields}
    changed = {"min_replica_count": low, "max_replica_count": high, "scale_to_zero_from": _last_step(options, kind)}
    return ScalingSpec(**{**given, **changed})


def _last_step(options: argparse.Namespace, kind: str) -> int | None:
    """Locally a fleet walks down to zero; in a cluster the file alone decides, as it would with KEDA."""
    if options.scale_to_zero_from is not None:
        return options.scale_to_zero_from or None
    return 1 if kind == "process" else None


@dataclass(frozen=True)
class Plan:
    """A ScaledObject made ready to be obeyed: with the bounds that hold, and whoever reads its triggers."""

    target: ScaledObject
    scaling: ScalingSpec
    observer: Observer


class Obedient(Protocol):
    """Obeys another plan from now on."""

    def obey(self, scaling: ScalingSpec, observer: Observer) -> None:
        """Decide by these settings and readings, with the memory there is."""
        ...


class Edits:
    """Has a loop obey its ScaledObject as that is edited, as KEDA would."""

    def __init__(
        self,
        file: ScaledObjectFile,
        plan_of: Callable[[ScaledObject], Plan],
        first: Plan,
        loop: Obedient,
        gauges: Gauges,
    ) -> None:
        self._file, self._plan_of, self._plan = file, plan_of, first
        self._loop, self._gauges = loop, gauges
        self._announce(was_held=False)

    def take(self) -> None:
        """Obey the file as it is now. One that cannot be used is told of, and the one before is obeyed on."""
        if not self._file.has_changed:
            return
        try:
            plan = self._plan_of(self._same(self._file.read()))
        except (ConfigurationError, ScaledObjectError, UnusableTrigger, ValueError) as error:
            log.error("scaled_object_refused", problem=str(error), note="the one before it is obeyed on")
            return
        before, self._plan = self._plan, plan
        self._loop.obey(plan.scaling, plan.observer)
        self._gauges.obey(plan.target, plan.scaling)
        before.observer.close()
        self._announce(was_held=bool(before.scaling.annotations.holds))

    def _same(self, target: ScaledObject) -> ScaledObject:
        """Raises ValueError if it is about something else than the one obeyed so far."""
        if (target.name, target.target) != (self._plan.target.name, self._plan.target.target):
            raise ValueError("metadata.name and spec.scaleTargetRef must stay as they are; or restart the autoscaler")
        return target

    def _announce(self, was_held: bool) -> None:
        scaling = self._plan.scaling
        log.info(
            "obeying",
            file=str(self._file.path),
            min_workers=scaling.min_replica_count,
            max_workers=scaling.max_replica_count,
            polling_seconds=scaling.polling_interval,
            cooldown_seconds=scaling.cooldown_period,
        )
        if scaling.annotations.holds:
            log.warning("paused", by=scaling.annotations.holds, workers=scaling.annotations.paused_replicas)
        elif was_held:
            log.info("unpaused")
