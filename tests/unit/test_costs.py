"""The books of days, summed up."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from decimal import Decimal

import orjson
from hypothesis import given
from hypothesis import strategies as st

from dspy_jobs.costs import GROUPS, Costs, Span
from dspy_jobs.money import dollars, format_dollars, nanos

MONDAY = date(2026, 1, 5)
FIELDS = st.tuples(
    st.sampled_from(["a", "b"]), st.sampled_from(["", "v"]), st.just("qa"), st.sampled_from(["default", "x"])
)
METRICS = st.sampled_from(["calls", "cost", "unpriced", "hit", "coalesced", "saved", "lost", "jobs"])
BOOKS = st.dictionaries(
    st.tuples(FIELDS, METRICS).map(lambda field: "|".join((*field[0], field[1])).encode()),
    st.integers(0, 10**12).map(lambda value: b"%d" % value),
)


def summed(group_by: tuple[str, ...], *books: dict[bytes, bytes]) -> Costs:
    """The books of that many days from Monday on."""
    costs = Costs(group_by)
    for number, day in enumerate(books):
        costs.add(MONDAY + timedelta(days=number), day)
    return costs


def test_costs_are_told_apart_by_the_groups_asked_for() -> None:
    """A row a group, in order, with the members it was asked for; jobs without a variant have none."""
    books = {
        b"fast||qa|default|calls": b"2", b"fast||qa|default|cost": b"3", b"fast|b|qa|acme|calls": b"5",
        b"fast|b|qa|acme|hit": b"1", b"fast|b|qa|acme|coalesced": b"1", b"slow||qa|acme|cost": b"7",
    }  # fmt: skip
    rows = summed(("variant", "client"), books, {b"slow||qa|acme|cost": b"11"}).rows()
    assert [(row["variant"], row["client"], row["calls"], row["cost_nanos"], row["cached"]) for row in rows] == [
        (None, "acme", 0, 18, 0),
        (None, "default", 2, 3, 0),
        ("b", "acme", 5, 0, 2),
    ]
    assert [row["day"] for row in summed(("day",), books, {}, books).rows()] == ["2026-01-05", "2026-01-07"]
    assert summed(("day",)).total()["cost_nanos"] == 0


def test_what_is_not_known_is_counted_and_not_hidden() -> None:
    """Costs are complete only if every call had a price and no attempt was lost."""
    known = {b"m||p|c|cost": b"5", b"m||p|c|estimated": b"1", b"m||p|c|untokened": b"1"}
    assert summed(("day",), known).complete
    for metric in (b"unpriced", b"lost"):
        costs = summed(("day",), known, {b"m||p|c|" + metric: b"1"})
        assert (costs.complete, costs.total()["complete"]) == (False, False)
        assert [row["complete"] for row in costs.rows()] == [True, False]
    assert summed(("day",), {b"m||p|c|unsaved": b"2"}).total()["unsaved_jobs"] == 2


def test_metrics_of_a_later_version_are_passed_over() -> None:
    """An older process reads the books of a newer one."""
    assert summed(("model",), {b"m||p|c|carats": b"5", b"m||p|c|calls": b"1"}).rows()[0]["calls"] == 1


@given(st.lists(BOOKS, max_size=4), st.sets(st.sampled_from(GROUPS), min_size=1))
def test_every_grouping_adds_up_to_the_same_total(days: list[dict[bytes, bytes]], groups: set[str]) -> None:
    """Nothing is lost or counted twice, however rows are cut."""
    costs = summed(tuple(groups), *days)
    expected: Counter[str] = Counter()
    for books in days:
        for name, value in books.items():
            expected[name.decode().rpartition("|")[2]] += int(value)
    total = costs.total()
    assert (total["cost_nanos"], total["calls"]) == (expected["cost"], expected["calls"])
    for name in ("cost_nanos", "saved_nanos", "cached", "jobs"):
        assert sum(row[name] for row in costs.rows()) == total[name]


@given(st.integers(0, 10**15))
def test_dollars_are_the_integer_with_its_point_moved(amount: int) -> None:
    """The JSON number has the nano-dollars' decimals and no others, and so has what people read."""
    assert Decimal(orjson.dumps(dollars(amount)).decode()) == Decimal(amount).scaleb(-9)
    assert Decimal(format_dollars(amount)[1:].replace(",", "")) == Decimal(amount).scaleb(-9)
    assert nanos(dollars(amount)) == amount


def test_dollars_for_people_have_cents() -> None:
    """At least two decimals, and thousands apart."""
    assert [format_dollars(n) for n in (0, 1, 10**15)] == ["$0.00", "$0.000000001", "$1,000,000.00"]


def test_a_span_has_both_its_ends() -> None:
    """Days are counted with the first and the last."""
    span = Span(MONDAY, MONDAY + timedelta(days=2))
    assert (span.days, [day.day for day in span]) == (3, [5, 6, 7])
    assert Span(MONDAY, MONDAY - timedelta(days=1)).days == 0
