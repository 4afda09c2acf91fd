"""All looks, in the order in which one depends on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from dspy_jobs.client import Client
from dspy_jobs.doctor import machine, providers, redis_servers, service, surroundings
from dspy_jobs.doctor.finding import Finding, Look, fail, findings, ok, warn
from dspy_jobs.doctor.survey import Surveying
from dspy_jobs.settings import ConfigurationError, Settings, load_settings


@dataclass(frozen=True)
class Options:
    """What is asked for beyond the usual."""

    prometheus: str
    """Its address."""
    is_online: bool = False
    """Whether each model is called, which is paid for."""


def diagnose(connect: Callable[[], Client], options: Options) -> Iterator[Finding]:
    """Every finding, as it is made. `connect` makes a client of the service."""
    yield from findings([("Python", machine.look_at_python)])
    try:
        settings = load_settings()
    except ConfigurationError as mistakes:
        yield fail("configuration", str(mistakes), "mend the file; nothing else can be looked at before")
        return
    yield _configuration(settings)
    yield from findings(_looks(settings, connect, options))


def _configuration(settings: Settings) -> Finding:
    if settings.source is None:
        detail = "no dspy-jobs.toml found; defaults and environment: what runs is compared with nothing"
        return warn("configuration", detail, "run this in the project's folder, or name the file in DSPY_JOBS_CONFIG")
    counts = f"{len(settings.models)} models, {len(settings.programs)} programs"
    return ok("configuration", f"{settings.source}: {counts}")


def _looks(settings: Settings, connect: Callable[[], Client], options: Options) -> Iterator[tuple[str, Look]]:
    """A generator, so that nothing is asked before it is its turn; but what takes longest begins first."""
    surveying = Surveying(settings)
    yield "open files", lambda: machine.look_at_files(settings)
    yield "disk", lambda: machine.look_at_disk(settings)
    yield "Redis", lambda: redis_servers.look_at_ledger(settings)
    yield "cache", lambda: redis_servers.look_at_cache(settings)
    with closing(service.Service(_client(connect), settings)) as found:
        yield "API", lambda: service.look_at_api(found)
        yield "API port", lambda: machine.look_at_ports(settings, found.health is not None)
        yield "workers", lambda: service.look_at_workers(found)
        yield "queues", lambda: service.look_at_components(found)
        yield "autoscaler", lambda: surroundings.look_at_autoscaler(settings)
        yield "Flower", lambda: surroundings.look_at_flower(settings)
        yield "tracing", lambda: surroundings.look_at_tracing(settings)
        yield "Sentry", lambda: surroundings.look_at_sentry(settings)
        yield "Prometheus", lambda: surroundings.look_at_prometheus(options.prometheus)
        survey = surveying.result()
        yield "programs", lambda: service.look_at_programs(found, survey)
        yield "models", lambda: providers.look_at_models(settings, survey, found)
        yield "providers", lambda: providers.look_at_addresses(settings, survey, found)
        if options.is_online:
            yield "calls", lambda: providers.look_by_calling(settings, found)


def _client(connect: Callable[[], Client]) -> Client | Exception:
    try:
        return connect()
    except (ConfigurationError, ValueError) as error:
        return error
