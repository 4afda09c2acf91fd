"""An HTTP client that is not the bottleneck: prepared bytes over kept connections, one request at a time on each.

`python -m benchmarks.http_load` reads orders from its standard input, one JSON object a line, and writes what came
back: seconds in all, percentiles of a request's milliseconds, the statuses, the last answer's body.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

import orjson
import uvloop

from benchmarks.figures import percentile


def request_bytes(order: dict[str, Any]) -> bytes:
    """The whole request of an order."""
    body = Path(order["body_file"]).read_bytes() if "body_file" in order else order.get("body", "").encode()
    head = [
        f"{order['method']} {order['path']} HTTP/1.1",
        "host: 127.0.0.1",
        f"content-length: {len(body)}",
        f"content-type: {order.get('content_type', 'application/json')}",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def complete_answer(received: bytes) -> tuple[int, bytes] | None:
    """Status and body once the whole answer is there. Answers carry a content length, as this project's do."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None
    at = head.lower().find(b"content-length:")
    if at < 0:
        raise ValueError(f"an answer without content-length: {head!r}")
    length = int(head[at + 15 :].partition(b"\r\n")[0])
    return (int(head[9:12]), body) if len(body) >= length else None


class _Tally:
    """Requests still to be sent and what came back."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.pending = count
        self.statuses: Counter[int] = Counter()
        self.milliseconds: list[float] = []
        self.last_body = b""
        self.done = asyncio.get_running_loop().create_future()

    def note(self, status: int, body: bytes, seconds: float) -> None:
        self.statuses[status] += 1
        self.milliseconds.append(seconds * 1000)
        self.last_body = body
        self.pending -= 1
        if not self.pending and not self.done.done():
            self.done.set_result(None)


class _Connection(asyncio.Protocol):
    """Sends the request again as soon as its answer is complete."""

    def __init__(self, request: bytes, tally: _Tally) -> None:
        self._request, self._tally = request, tally
        self._received = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if answer := complete_answer(self._received):
            self._received = b""
            self._tally.note(*answer, time.perf_counter() - self._sent_at)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._tally.done.done():
            self._tally.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        if self._tally.left <= 0:
            return
        self._tally.left -= 1
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)

    def close(self) -> None:
        """Close, now that everything is answered."""
        self._transport.close()


async def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    """Send an order's requests and answer what came back."""
    request, tally = request_bytes(order), _Tally(order["count"])
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    opened = [
        await loop.create_connection(lambda: _Connection(request, tally), "127.0.0.1", order["port"])
        for _ in range(min(order["connections"], order["count"]))
    ]
    await tally.done
    seconds = time.perf_counter() - began
    for _, connection in opened:
        connection.close()
    times = tally.milliseconds if len(tally.milliseconds) > 1 else tally.milliseconds * 2
    return {
        "seconds": seconds,
        "p50_ms": percentile(times, 50),
        "p99_ms": percentile(times, 99),
        "statuses": {str(status): number for status, number in tally.statuses.items()},
        "body": tally.last_body[:100_000].decode(errors="replace"),
    }


def main() -> None:
    """Carry out orders until the input ends."""
    print("ready", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin.buffer:
            order = orjson.loads(line)
            found = runner.run(carry_out(order))
            print(orjson.dumps({"order": order["number"], **found}).decode(), flush=True)


if __name__ == "__main__":
    main()
