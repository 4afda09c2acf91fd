"""What a request's headers and query say."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from api.reading import trace_context, wait_seconds


def request(**headers: str) -> Request:
    """A request with these headers."""
    return Request({"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers.items()]})


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=5", 5),
        ("respond-async, wait=5", 5),
        ("WAIT = 7; foo=bar", 7),
        ('wait="8"', 8),
        ("wait=100", 60),
        ("wait=0", 0),
        ("wait=-1", 0),
        ("wait=soon", 0),
        ("await=5", 0),
        ("", 0),
    ],
)
def test_a_preference_to_wait_is_read_or_ignored(prefer: str, seconds: int) -> None:
    """Seconds up to the limit; what makes no sense is ignored, as RFC 7240 wants it."""
    assert wait_seconds(request(prefer=prefer), 60) == seconds


def test_only_a_well_formed_trace_is_carried() -> None:
    """A traceparent that is not W3C's is dropped, and a tracestate without it."""
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert trace_context(request(traceparent=good)) == {"traceparent": good}
    assert trace_context(request(traceparent=good, tracestate="a=1,b=2")) == {
        "traceparent": good,
        "tracestate": "a=1,b=2",
    }
    assert trace_context(request(traceparent=good, tracestate="é")) == {"traceparent": good}
    assert trace_context(request(traceparent="x" * 55, tracestate="a=1")) == {}
