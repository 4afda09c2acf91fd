"""The commands that tell what was spent, and what may still be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dspy_jobs.cli.connection import connect
from dspy_jobs.cli.failures import say
from dspy_jobs.cli.options import AsJson

if TYPE_CHECKING:
    from dspy_jobs.models import Costs

First = Annotated[
    str | None, typer.Option("--from", metavar="DAY", help="First day, in UTC; the first of the month by default.")
]
Last = Annotated[str | None, typer.Option("--to", metavar="DAY", help="Last day, included; today by default.")]
By = Annotated[
    str, typer.Option(metavar="GROUPS", help="Some of day, model, variant, program, client, joined by commas.")
]


def costs(ctx: typer.Context, first: First = None, last: Last = None, by: By = "day", as_json: AsJson = False) -> None:
    """Show what model calls have cost: this month so far, a line a day, unless told otherwise.

    Calls without a known price and attempts lost with their worker cost what nobody knows: a sum with such a part is
    shown as ≥ what is known, or as unknown, and they are counted on stderr, not guessed.
    """
    from dspy_jobs.cli.display import print_costs, print_json

    with connect(ctx) as client:
        found = client.costs(first=first, last=last, group_by=by.split(","))
    if as_json:
        print_json(found)
        return
    print_costs(found)
    if causes := _unknown(found):
        say(f"not all is known: {', '.join(causes)}")


def _unknown(found: Costs) -> list[str]:
    """What the sums do not hold, and why."""
    total = found.total
    counted = {
        "calls have no known price": total.unpriced_calls,
        "attempts were lost with their worker": total.lost_attempts,
        "cached jobs saved nobody knows how much": total.unsaved_jobs,
    }
    causes = [f"{number} {what}" for what, number in counted.items() if number]
    if total.complete and not found.complete:
        causes.append("the books of the first days are over (costs.retention_days)")
    return causes


def budgets(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show how much of each budget is left, and when it is there again."""
    from dspy_jobs.cli.display import print_budgets, print_json

    with connect(ctx) as client:
        found = client.budgets()
    if as_json:
        print_json([budget.model_dump(mode="json", exclude_unset=True) for budget in found])
    else:
        print_budgets(found)
