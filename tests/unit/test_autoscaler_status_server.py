"""What the autoscaler serves: its metrics, and whether its loop runs."""

from __future__ import annotations

import httpx
import pytest
from autoscaler_doubles import Clock
from prometheus_client import CollectorRegistry, Gauge

from autoscaler.status_server import STUCK_SECONDS, Pulse, serve_status


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_loop_that_hangs_is_told_though_the_server_answers(host: str) -> None:
    """Healthy until the last step began too long ago, and again with the next one; metrics are served meanwhile."""
    registry, clock = CollectorRegistry(), Clock()
    Gauge("answer", "The answer.", registry=registry).set(42)
    pulse = Pulse(clock)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{serve_status(0, host, registry, pulse)}"

    def status(path: str) -> int:
        return httpx.get(url + path, trust_env=False).status_code

    clock.pass_by(STUCK_SECONDS - 1)
    assert status("/health") == 200
    clock.pass_by(1)
    assert (status("/health"), status("/metrics")) == (503, 200)
    pulse.beat()
    assert status("/health") == 200
    assert "answer 42.0" in httpx.get(url + "/metrics", trust_env=False).text
