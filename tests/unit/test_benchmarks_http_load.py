"""The load client's reading and writing of HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.http_load import complete_answer, request_bytes

ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nX-Request-Id: 1\r\n\r\n{}"


@pytest.mark.parametrize("received", [ANSWER[:10], ANSWER[:-3], ANSWER[:-1]])
def test_an_answer_is_not_taken_before_it_is_complete(received: bytes) -> None:
    """A part of the head or of the body is no answer yet."""
    assert complete_answer(received) is None


def test_a_complete_answer_is_its_status_and_body() -> None:
    """The status and the body come out as they were sent, whatever the case of the header's name."""
    assert complete_answer(ANSWER) == (202, b"{}")


def test_an_answer_without_a_length_is_refused() -> None:
    """An answer whose end cannot be known is an error, not an endless wait."""
    with pytest.raises(ValueError, match="content-length"):
        complete_answer(b"HTTP/1.1 200 OK\r\n\r\n")


def test_a_request_carries_its_file(tmp_path: Path) -> None:
    """An upload's body is the file's bytes, with their number in the head."""
    lines = tmp_path / "lines"
    lines.write_bytes(b'{"a":1}\n')
    order = {"method": "POST", "path": "/v1/batches", "body_file": str(lines), "content_type": "application/x-ndjson"}
    head, _, body = request_bytes(order).partition(b"\r\n\r\n")
    assert body == b'{"a":1}\n'
    assert b"content-length: 8" in head
    assert head.startswith(b"POST /v1/batches HTTP/1.1\r\n")
