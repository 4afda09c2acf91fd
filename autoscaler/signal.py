"""The metric we scale on, as the vectors name it. Its one implementation is shared with `GET /v1/autoscale`."""

from __future__ import annotations

from dspy_jobs.demand import SMALLEST_WORK, Demand, Load, demand_of, work, work_slots

__all__ = ["SMALLEST_WORK", "Demand", "Load", "demand_of", "work", "work_slots"]
