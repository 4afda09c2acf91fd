"""`Idempotency-Key`: a request is carried out once and answered as often as it is sent.

A key is taken before anything is done, together with the id of what the request will create. So a repeat after a
crash finds that id: if it is there, the repeat answers with it; if not, nothing was created.

As Stripe does, an answer is kept once the request was carried out, also one that says what state forbade it (404,
409, 410). A request refused by a check (400, 413, 415, 422), put off (429, 503) or failed (5xx) leaves the key free,
except that what was created keeps it. An answer that may have outgrown its use, such as a prediction's, is made anew
from the job rather than kept.

A request that only asks what a batch would come to creates nothing and stores nothing, so its key is ignored.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import orjson
import structlog
from redis.exceptions import RedisError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from api.answers import problem_answer
from api.batch_body import is_dry_run
from api.ending import end_tasks
from api.reading import JSON, NDJSON, chunks
from api.resources import Resources, resources_of
from api.routing import client_of
from dspy_jobs import names
from dspy_jobs.ids import new_batch_id, new_job_id
from dspy_jobs.problems import ProblemError, fail
from dspy_jobs.settings import Settings
from dspy_jobs.store.idempotency import KeyState, reserve_key, settle_key

Handler = Callable[[Request], Awaitable[Response]]

#: Seconds after which a process that was not heard of has lost its keys; how often it says that it is at it.
_LOCK_SECONDS, _RENEW_SECONDS = 15.0, 4.0
#: Seconds the end of a request waits for Redis to hear of it.
_PATIENCE_SECONDS = 1.0
#: Bytes of a body above which the answer is made anew from what was created.
_LARGEST_ANSWER = 65_536
_KEPT = frozenset((200, 202, 404, 409, 410))
#: Makes the id of what a route creates.
_NEW_ID = {"/v1/jobs": new_job_id, "/v1/predict": new_job_id, "/v1/batches": new_batch_id}
#: A repeat waits for the job again instead of being told that it was not done then.
_MADE_ANEW = frozenset(("/v1/predict",))

_log = structlog.get_logger("api")


def once(route: str, handler: Handler) -> Handler:
    """The handler of a route, carried out once for each `Idempotency-Key`."""

    async def keyed(request: Request) -> Response:
        if "idempotency-key" not in request.headers or (route == "/v1/batches" and is_dry_run(request)):
            return await handler(request)
        return await _once(request, route, handler)

    return keyed


class _Body:
    """A request's body on its way to the handler, and the fingerprint of all of the request that counts."""

    def __init__(self, request: Request) -> None:
        media = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        head = (request.method, request.scope["path"], request.scope["query_string"].decode("latin-1"), media)
        self._hash = hashlib.sha256(orjson.dumps(head))
        self._request = request
        self._messages: list[Message] = []
        self.complete = False
        #: Too long to be held: it is hashed while the handler reads it.
        self.streams = media == NDJSON

    @property
    def fingerprint(self) -> str:
        """Empty until the body is complete."""
        return self._hash.hexdigest() if self.complete else ""

    async def read(self, limit: int, keep: bool) -> None:
        """Read it to its end, for the handler to read again or not."""
        parts = []
        async for chunk in chunks(self._request, limit, "The body"):
            self._hash.update(chunk)
            if keep:
                parts.append(chunk)
        self._messages = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]
        self.complete = True

    async def receive(self) -> Message:
        """What the handler reads from."""
        if self._messages:
            return self._messages.pop()
        message = await self._request.receive()
        if message["type"] == "http.request":
            self._hash.update(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        return message


@dataclass(slots=True)
class Reservation:
    """A key, as the request that came with it holds it."""

    resources: Resources
    key: str
    body: _Body
    holder: str
    id: str
    """What is created must be called so; empty where nothing is."""
    exists: bool = False
    """Whether it has been created by an earlier request with this key."""

    async def reserve(self) -> KeyState:
        """Take the key, keep it, or learn what became of it.

        Raises:
            ProblemError: it belongs to another request, or another is at it.
        """
        lifetime = self.resources.settings.jobs.idempotency_seconds
        operation = reserve_key(self.key, self.body.fingerprint, self.holder, _LOCK_SECONDS, lifetime, self.id)
        found = await self.resources.store.run(operation)
        if found.what == "mismatch":
            raise _mismatch()
        if found.what == "in_flight":
            raise _in_flight()
        return found

    async def seal(self) -> None:
        """Make sure, when all of the body is there, that the key is still this request's and for this body.

        Raises:
            ProblemError: it is not, so nothing may be created.
        """
        found = await self.reserve()
        if (found.what, found.id) != ("reserved", self.id):
            raise _in_flight()

    async def settle(self, answer: bytes = b"", *, sure: bool = True) -> None:
        """Let go of the key, with the answer if it is to be kept. A lock that cannot be undone ends by itself."""
        task = self.resources.start(self._settle(answer, sure))
        await asyncio.wait({task}, timeout=_PATIENCE_SECONDS)

    async def _settle(self, answer: bytes, sure: bool) -> None:
        try:
            await self.resources.store.run(settle_key(self.key, self.holder, answer, sure=sure))
        except RedisError as error:
            _log.warning("idempotency_key_not_settled", error=type(error).__name__)

    @asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Keep the lock for as long as this lasts."""
        renewal = self.resources.start(self._renew())
        try:
            yield
        finally:
            self.resources.start(end_tasks([renewal]))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            # Whoever lost the key learns it when it seals; what is created without that is created once by its id.
            with suppress(RedisError, ProblemError):
                await self.reserve()


def reservation_of(request: Request) -> Reservation | None:
    """The key a request came with; None where it came without."""
    found = request.scope.get("idempotency")
    assert found is None or isinstance(found, Reservation)
    return found


async def _once(request: Request, route: str, handler: Handler) -> Response:
    resources = resources_of(request)
    key, body = _key(request, route), _Body(request)
    limit = _limit(resources.settings, route)
    if not body.streams:
        await body.read(limit, keep=True)
    new_id = _NEW_ID.get(route, str)()
    reservation = Reservation(resources, key, body, secrets.token_hex(8), new_id)
    found = await reservation.reserve()
    reservation.id, reservation.exists = found.id, found.what == "made"
    request.scope["idempotency"] = reservation
    inner = Request(request.scope, body.receive)
    if found.what == "reserved":
        return await _first(inner, reservation, handler, route not in _MADE_ANEW)
    if body.streams:
        await body.read(limit, keep=False)
        if body.fingerprint != found.fingerprint:
            raise _mismatch()
    answer = _rebuilt(found.answer) if found.answer else await handler(inner)
    answer.headers["idempotency-replayed"] = "true"
    return answer


async def _first(request: Request, reservation: Reservation, handler: Handler, keep: bool) -> Response:
    try:
        async with reservation.renewed():
            answer = await _answer(request, handler)
    except ProblemError as error:
        await reservation.settle(sure=error.problem.code != "idempotency_mismatch")
        raise
    except BaseException as error:
        await reservation.settle(sure=isinstance(error, ClientDisconnect))
        raise
    small = not reservation.id or len(answer.body) <= _LARGEST_ANSWER
    kept = keep and small and answer.status_code in _KEPT
    await reservation.settle(_record(answer) if kept else b"")
    return answer


async def _answer(request: Request, handler: Handler) -> Response:
    """The handler's answer, also where it is a problem to be kept."""
    try:
        return await handler(request)
    except ProblemError as error:
        if error.problem.status not in _KEPT or error.problem.code.startswith("idempotency_"):
            raise
        return problem_answer(request.scope, error.problem, error.headers)


def _record(answer: Response) -> bytes:
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return orjson.dumps([answer.status_code, headers, bytes(answer.body).decode()])


def _rebuilt(record: bytes) -> Response:
    status, headers, body = orjson.loads(record)
    return Response(body, status, headers)


def _key(request: Request, route: str) -> str:
    """The Redis key for the caller's.

    Raises:
        ProblemError: the caller's is not fit to be one.
    """
    given = request.headers.getlist("idempotency-key")
    if len(given) != 1 or not _FIT.fullmatch(given[0]):
        detail = "Idempotency-Key must be given once, as 1 to 255 visible ASCII characters without spaces."
        mistake = {"param": "Idempotency-Key", "code": "invalid_parameter", "detail": detail}
        raise fail("invalid_parameter", detail, errors=[mistake])
    # Two clients may think of the same key, and neither must be answered with what the other asked.
    client = client_of(request, resources_of(request).settings)
    scope = orjson.dumps((client, request.method, route, given[0]))
    return names.idempotency(hashlib.sha256(scope).hexdigest())


_FIT = re.compile(names.IDEMPOTENCY_KEY)


def _limit(settings: Settings, route: str) -> int:
    return settings.limits.batch_bytes if route.startswith("/v1/batches") else settings.limits.item_bytes


def _mismatch() -> ProblemError:
    detail = "The Idempotency-Key was used for another request; nothing was done. Send a new key with a new request."
    return fail("idempotency_mismatch", detail)


def _in_flight() -> ProblemError:
    detail = "The first request with this Idempotency-Key is still under way; send it again in a second."
    return ProblemError(fail("idempotency_in_flight", detail).problem, {"retry-after": "1"})
