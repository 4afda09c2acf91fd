"""A batch's items as NDJSON: encoded before the first byte is sent, kept on disk when large, sent in pieces."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Self

import httpx

from dspy_jobs.client.errors import InvalidArgument

#: Bytes kept in memory before the items move to a temporary file.
_IN_MEMORY = 4_000_000
_PIECE = 65_536


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Can be sent again, by either kind of client, until the `with` block it is used in ends."""

    def __init__(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Raises InvalidArgument: an item cannot be written as JSON; the text says which."""
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed with the body
        try:
            self._file.writelines(_line(number, item) for number, item in enumerate(items, 1))
        except BaseException:
            self._file.close()
            raise
        self.length = self._file.tell()

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while piece := self._file.read(_PIECE):
            yield piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def _line(number: int, item: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(item, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"item {number} cannot be written as JSON: {error}") from None
