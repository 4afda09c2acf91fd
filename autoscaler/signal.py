"""The metric we scale on: how many call slots the outstanding jobs need, depth weighed by service time.

A hundred waiting jobs of one second and of one minute need very different fleets. ``inflight + waiting`` work
is never 0 while a job is outstanding, so scaling to zero can neither strand nor kill one.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Least metric reported while anything is outstanding: one thousandth, the smallest step KEDA keeps.
SMALLEST_WORK = 0.001


@dataclass(frozen=True)
class Load:
    """What is outstanding: counts of jobs, times in seconds.

    ``inflight`` excludes jobs held by draining workers, which are no longer capacity. ``service_seconds`` is
    None while too few jobs have finished to know it. ``provider_slots`` caps concurrent calls; None means no
    cap.
    """

    waiting: int
    inflight: int
    oldest_wait_seconds: float = 0.0
    service_seconds: float | None = None
    provider_slots: float | None = None


def work_slots(load: Load, target_wait_seconds: float) -> float:
    """Return the concurrent call slots needed so that a job waits about ``target_wait_seconds``.

    An unknown service time, or a job that has already waited too long, counts every waiting job in full.
    """
    if load.service_seconds is None or load.oldest_wait_seconds > target_wait_seconds:
        share = 1.0
    else:
        share = min(1.0, load.service_seconds / target_wait_seconds)
    slots = load.inflight + load.waiting * share
    return slots if load.provider_slots is None else min(slots, load.provider_slots)


def work(load: Load, target_wait_seconds: float, target_utilization: float) -> float:
    """Return the metric that KEDA reads: slots with headroom, so that replicas are busy that share of time.

    0 only if nothing is outstanding. KEDA keeps three decimals, so the share of very short jobs would
    otherwise read as an idle queue, and so would a provider without a free slot, stranding jobs at zero.
    """
    if load.waiting + load.inflight == 0:
        return 0.0
    return max(work_slots(load, target_wait_seconds) / target_utilization, SMALLEST_WORK)
