"""Around every request: its id, its log line, its metrics, and the answer when something unforeseen happens."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.answers import problem_answer
from api.own_metrics import OwnMetrics
from dspy_jobs import error_reports
from dspy_jobs.logs import bind_id
from dspy_jobs.measures import OTHER
from dspy_jobs.problems import problem

_SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}\Z")
#: Longest part of a path that is logged, in characters.
_LONGEST_PATH = 200

_log = structlog.get_logger("api")


class RequestScope:
    """ASGI middleware. Puts `request_id` into the scope. `templates` are the addresses of endpoints."""

    def __init__(self, app: ASGIApp, metrics: OwnMetrics, templates: Mapping[Any, str]) -> None:
        self.app = app
        self._metrics = metrics
        self._templates = templates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _given_id(scope) or b"req_" + secrets.token_hex(12).encode()
        scope["request_id"] = request_id.decode()
        bind_id("request_id", scope["request_id"])
        began, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass
        # Whatever was not foreseen: the caller gets a problem, the log the place, nobody a stack trace. An answer
        # already begun is cut off by returning, so that nobody takes a part for the whole.
        except Exception as error:  # noqa: BLE001
            _log.exception("request_failed")
            error_reports.report(error, "request_failed", self._described(scope))
            if not status:
                await problem_answer(scope, _UNEXPECTED)(scope, receive, send_with_id)
        seconds = time.perf_counter() - began
        self._metrics.count_request(scope["method"], self._template(scope), status, seconds)
        # Polls and probes that went well would bury the rest, and cost a fifth of a poll.
        level = logging.DEBUG if scope["method"] == "GET" and 0 < status < 400 else logging.INFO
        path, ids = scope["path"][:_LONGEST_PATH], _ids_in(scope)
        _log.log(level, "request", method=scope["method"], path=path, status=status, seconds=round(seconds, 4), **ids)

    def _template(self, scope: Scope) -> str:
        return self._templates.get(scope.get("endpoint"), OTHER)

    def _described(self, scope: Scope) -> dict[str, str]:
        """Which request it was; its path may hold anything, its route does not."""
        return {"request_id": scope["request_id"], "method": scope["method"], "route": self._template(scope)}


_UNEXPECTED = problem("unexpected", "The service met something unforeseen; its log has the request_id.")


def _ids_in(scope: Scope) -> dict[str, str]:
    """The job or batch that the path names."""
    named = scope.get("path_params") or {}
    return {name: named[name] for name in ("job_id", "batch_id") if name in named}


def _given_id(scope: Scope) -> bytes | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return value if _SANE_ID.match(value) else None
    return None
