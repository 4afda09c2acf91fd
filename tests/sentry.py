"""A stand-in of Sentry: takes envelopes over HTTP and reads them with the SDK's own classes."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sentry_sdk.envelope import Envelope

from tests.unit.http_stand_in import StandIn, stand_in


class Sentry:
    """What has arrived, and where it is to be sent."""

    def __init__(self, server: StandIn) -> None:
        self._server = server
        server.answer("/api/7/envelope/", {"id": "1"}, method="POST")

    @property
    def dsn(self) -> str:
        """Its address, with a project's key."""
        return f"{self._server.url.replace('://', '://publickey@')}/7"

    @property
    def bodies(self) -> list[bytes]:
        """Everything that has arrived, as it was before it was compressed."""
        return [_plain(headers, body) for _, _, headers, body in list(self._server.asked)]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The reports among it, in order."""
        items = [item for body in self.bodies for item in Envelope.deserialize(body).items]
        return [item.payload.json for item in items if item.type == "event" and item.payload.json]


def _plain(headers: dict[str, str], body: bytes) -> bytes:
    encodings = {name.lower(): value for name, value in headers.items()}
    return gzip.decompress(body) if encodings.get("content-encoding") == "gzip" else body


@contextmanager
def local_sentry() -> Iterator[Sentry]:
    """A Sentry for as long as the block lasts."""
    with stand_in() as server:
        yield Sentry(server)
