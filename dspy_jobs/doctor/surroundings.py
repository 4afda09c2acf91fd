"""Looks at what stands around the service: the autoscaler, Flower, Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import redis
import yaml
from redis.exceptions import RedisError

from dspy_jobs import error_reports, names
from dspy_jobs.doctor.finding import Finding, fail, ok, skip, warn
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import ConfigurationError, Settings, secret
from dspy_jobs.stack.parts import flower_url
from dspy_jobs.store import connect

_PATIENCE_SECONDS = 2.0


def look_at_autoscaler(settings: Settings) -> Iterator[Finding]:
    """Whether an autoscaler of ours leads. None need do: a fleet may be fixed, or KEDA's."""
    base = settings.source.parent if settings.source else Path.cwd()
    path = base / settings.autoscaler.scaled_object
    try:
        name = str(yaml.safe_load(path.read_text(encoding="utf-8"))["metadata"]["name"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        yield skip("autoscaler", f"{path} tells no name ({type(error).__name__})")
        return
    try:
        with connect(redis_url(settings), _PATIENCE_SECONDS) as client:
            yield _leader(client, name)
    except (RedisError, OSError):
        yield skip("autoscaler", "Redis cannot be asked who leads")


def _leader(client: redis.Redis, name: str) -> Finding:
    left: Any = client.pttl(names.autoscaler_lease(name))
    if left == -1:
        remedy = f"`redis-cli del {names.autoscaler_lease(name)}`, if no autoscaler runs"
        return warn("autoscaler", f"a lease of {name} never ends", remedy)
    if left < 0:
        return skip("autoscaler", f"none leads {name}: the fleet is fixed, or somebody else's, such as KEDA's")
    return ok("autoscaler", f"one leads {name}; its lease runs for {left / 1000:.0f} s more")


def look_at_flower(settings: Settings) -> Iterator[Finding]:
    """Whether Flower answers; a question for a password is an answer."""
    url = flower_url(settings)
    try:
        status = httpx.get(f"{url}/healthcheck", timeout=_PATIENCE_SECONDS, trust_env=False).status_code
    except httpx.HTTPError:
        yield skip("Flower", f"does not answer at {url}; it only shows, nothing depends on it")
        return
    yield ok("Flower", f"answers at {url}") if status < 500 else warn("Flower", f"answers {status}", "restart it")


def look_at_tracing(settings: Settings) -> Iterator[Finding]:
    """Whether the collector that spans are sent to takes them; any answer to a request without spans will do."""
    if not settings.tracing.enabled:
        yield skip("tracing", "it is switched off (tracing.enabled)")
        return
    url = settings.tracing.endpoint or secret("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://127.0.0.1:4318"
    try:
        httpx.get(url, timeout=_PATIENCE_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        detail = f"no collector answers at tracing.endpoint ({type(error).__name__}): spans are lost"
        yield warn("tracing", detail, "start the collector, or correct tracing.endpoint")
    else:
        yield ok("tracing", "the collector answers")


def look_at_sentry(settings: Settings) -> Iterator[Finding]:
    """Whether reports of bugs have somewhere to go, as a process would find at its start."""
    if settings.sentry.dsn_env is None:
        yield skip("Sentry", "no reports are sent (sentry.dsn_env)")
        return
    try:
        error_reports.check(settings)
    except ConfigurationError as error:
        remedy = f"set {settings.sentry.dsn_env} where the service runs"
        yield warn("Sentry", f"{error}, so no process here would start", remedy)
    else:
        yield ok("Sentry", f"{settings.sentry.dsn_env} holds a DSN")


def look_at_prometheus(url: str) -> Iterator[Finding]:
    """Whether Prometheus can scrape what it is told to."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/api/v1/targets", params={"state": "active"}, timeout=_PATIENCE_SECONDS)
        targets = answer.json()["data"]["activeTargets"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        yield skip("Prometheus", f"does not answer at {url}; name yours with --prometheus")
        return
    down = [target for target in targets if target.get("health") != "up"]
    for target in down:
        labels = target.get("labels", {})
        what = f"{labels.get('job')} at {labels.get('instance')} is {target.get('health')}: {target.get('lastError')}"
        yield fail("Prometheus target", what, "start what it scrapes, or correct the address in its configuration")
    if not down:
        yield ok("Prometheus", f"scrapes {len(targets)} targets")
