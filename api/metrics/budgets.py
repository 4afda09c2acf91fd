"""How much of the budgets is spent; of single clients only the one nearest to its budget, without its name."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.resources import Resources
from dspy_jobs.budgets import ALL
from dspy_jobs.money import dollars
from dspy_jobs.store.books import limits_of_spending
from dspy_jobs.store.counted import Spending, read_spending

_LABELS = ("period", "scope")
_PERIODS = ("day", "month")


async def read_budgets(resources: Resources) -> Collector:
    """Read the budgets that workers keep to; as configured here while no worker has said."""
    spending = await resources.store.run(read_spending())
    limits = spending.limits or limits_of_spending(resources.settings)
    return BudgetCollector(Spending(limits, spending.spent))


class BudgetCollector(Collector):
    """The budgets of this day and month (UTC)."""

    def __init__(self, spending: Spending) -> None:
        self._limits, self._spent = spending.limits, spending.spent

    def collect(self) -> Iterator[Metric]:
        """The metric families. Where there is no budget there is no limit's sample, and of clients none at all."""
        spent = GaugeMetricFamily("dspy_budget_spent_usd", "US dollars spent in this period.", labels=_LABELS)
        limit = GaugeMetricFamily("dspy_budget_limit_usd", "The budget of this period.", labels=_LABELS)
        for period in _PERIODS:
            for scope, who in (("all", ALL), ("client", self._fullest(period))):
                if who is None:
                    continue
                spent.add_metric([period, scope], dollars(self._spent[period].get(who, 0)))
                if f"{period} {who}" in self._limits:
                    limit.add_metric([period, scope], dollars(self._limits[f"{period} {who}"]))
        yield from (spent, limit)

    def _fullest(self, period: str) -> str | None:
        """The client of whose budget the largest share is spent, if any client has one."""
        named = (name.partition(" ") for name in self._limits)
        clients = [who for of, _, who in named if of == period and who != ALL]
        return max(clients, key=lambda who: self._share(period, who), default=None)

    def _share(self, period: str, who: str) -> float:
        limit = self._limits[f"{period} {who}"]
        return self._spent[period].get(who, 0) / limit if limit else math.inf
