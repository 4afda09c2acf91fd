"""Items of a batch, checked one by one, with every mistake by its line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError

from api.admission import MOST_ERRORS, explain
from api.batch_query import PARAMETERS
from api.catalogue import TOO_DEEP, Mistake
from api.routing import Routing
from dspy_jobs.ids import new_job_id
from dspy_jobs.problems import ProblemError, fail
from dspy_jobs.settings import LimitSettings
from dspy_jobs.store.operations import Route
from dspy_jobs.submissions import BatchItem, BatchSubmission

#: Fields of a batch that its items have not, and how they are given with a body of lines and in one of JSON.
_IN_QUERY = {name: f"?{name}=…" for name in PARAMETERS if name not in BatchItem.model_fields}
_IN_BODY = {
    name: f"{name} beside `items`" for name in BatchSubmission.model_fields if name not in BatchItem.model_fields
}


@dataclass(frozen=True, slots=True)
class CheckedItem:
    """An item that is right."""

    job_id: str
    """Of the job it becomes, if it becomes one."""
    inputs: dict[str, Any]
    record: bytes
    """What is kept of it (JSON)."""
    route: Route


@dataclass(slots=True)
class ItemChecker:
    """Reads items as they come and hands on those that are right."""

    limits: LimitSettings
    routing: Routing
    version: str
    """The program's version that the batch as a whole shows."""
    accept: Callable[[CheckedItem], None]
    total: int = 0
    """Items read, right or not; lines that are not even JSON are no items."""
    invalid: int = 0
    """Items and lines with a mistake."""
    error_count: int = 0
    """Mistakes in all of them."""
    errors: list[Mistake] = field(default_factory=list)
    """The first mistakes."""
    _lines: dict[str, int] = field(default_factory=dict)

    def read_line(self, number: int, line: bytes | None) -> None:
        """Take a line of NDJSON; None stands for one that is too long."""
        if line is None:
            self._refuse(number, None, [self._too_long()])
            return
        try:
            item = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            mistake = {
                "param": None,
                "code": "malformed_body",
                "detail": f"the line is not valid JSON: {error}; send one object a line (curl: --data-binary, not -d)",
            }
            self._refuse(number, None, [mistake])
        else:
            self.read_item(number, item, _IN_QUERY)

    def read_item(self, number: int, item: Any, shared: Mapping[str, str] = _IN_BODY) -> None:
        """Take an item that has been parsed. `shared`: how fields are given that all items share.

        Raises:
            ProblemError: there are more items than allowed.
        """
        self.total += 1
        if self.total > self.limits.items_per_batch:
            most = self.limits.items_per_batch
            raise fail("payload_too_large", f"A batch may have {most} items at most; see GET /v1/limits.")
        job_id = new_job_id()
        checked = self._check(job_id, number, item, shared)
        if isinstance(checked, CheckedItem):
            self.accept(checked)
            return
        given = item.get("custom_id") if type(item) is dict else None
        self._refuse(number, given if type(given) is str else None, checked)

    def _check(self, job_id: str, number: int, item: Any, shared: Mapping[str, str]) -> CheckedItem | list[Mistake]:
        if type(item) is not dict:
            return [_not_an_object()]
        record, mistakes = _record(item, shared)
        mistakes += self._misfits(item, record) if not mistakes else []
        if mistakes or (mistakes := self._repeated(number, record.get("custom_id"))):
            return mistakes
        route = self.routing.route(job_id, None, record.get("custom_id"), item.get("variant"))
        if (version := self.routing.version(route.variant)) != self.version:
            record = {**record, "program_version": version}
        try:
            encoded = orjson.dumps(record)
        except TypeError:
            return [TOO_DEEP]
        if len(encoded) > self.limits.item_bytes:
            return [self._too_long()]
        return CheckedItem(job_id, record["inputs"], encoded, route)

    def _misfits(self, item: dict[str, Any], record: dict[str, Any]) -> list[Mistake]:
        unknown = self.routing.unknown(item.get("variant"))
        return [*self.routing.program.mistakes(record["inputs"]), *([unknown] if unknown else [])]

    def _repeated(self, number: int, custom_id: str | None) -> list[Mistake]:
        if custom_id is None:
            return []
        first = self._lines.setdefault(custom_id, number)
        if first == number:
            return []
        detail = f"the custom_id was already used on line {first}; each item needs its own"
        return [{"param": "custom_id", "code": "duplicate_custom_id", "detail": detail}]

    def _too_long(self) -> Mistake:
        most = self.limits.item_bytes
        detail = f"the item is larger than {most} bytes; see GET /v1/limits"
        return {"param": None, "code": "payload_too_large", "detail": detail}

    def _refuse(self, number: int, custom_id: str | None, mistakes: list[Mistake]) -> None:
        self.invalid += 1
        self.error_count += len(mistakes)
        room = MOST_ERRORS - len(self.errors)
        self.errors += [{"line": number, "custom_id": custom_id, **mistake} for mistake in mistakes[:room]]


def no_items() -> ProblemError:
    """What a batch without any item gets."""
    return fail("invalid_request_body", "The batch has no items; send one at least.")


def _not_an_object() -> Mistake:
    return {
        "param": None,
        "code": "invalid_request_body",
        "detail": "an item must be a JSON object with `inputs`",
    }


def _record(item: dict[str, Any], shared: Mapping[str, str]) -> tuple[dict[str, Any], list[Mistake]]:
    """What is kept of an item."""
    inputs, custom_id = item.get("inputs"), item.get("custom_id", "-")
    # Most items are of this shape; the model below is five times slower, and explains.
    if type(inputs) is dict and type(custom_id) is str and 0 < len(custom_id) <= 256 and item.keys() <= _PLAIN:
        return item, []
    try:
        checked = BatchItem.model_validate(item)
    except ValidationError as error:
        return {}, [_placed(mistake, shared) for mistake in explain(error)]
    record = {
        "inputs": checked.program_inputs(),
        "custom_id": checked.custom_id,
        "metadata": checked.metadata,
    }
    return {name: value for name, value in record.items() if value is not None}, []


_PLAIN = {"inputs", "custom_id"}


def _placed(mistake: Mistake, shared: Mapping[str, str]) -> Mistake:
    """The mistake; of a field that all items share, with the place to give it."""
    name = mistake["param"]
    if name not in shared:
        return mistake
    return {**mistake, "detail": f"there is no field {name!r} in an item; give it once: {shared[name]}"}
