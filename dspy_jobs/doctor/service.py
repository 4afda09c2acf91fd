"""Looks at the running service over HTTP: the API, its programs, its workers, and what it says of its own health."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspy_jobs import __version__
from dspy_jobs.client import ApiError, Client, InvalidArgument, ServiceUnreachable
from dspy_jobs.config_digest import config_digest, decisive
from dspy_jobs.doctor.finding import Finding, fail, ok, skip, warn
from dspy_jobs.doctor.survey import Survey
from dspy_jobs.models import Health, Program, WorkerHealth
from dspy_jobs.redaction import redacted
from dspy_jobs.settings import ConfigurationError, Settings

#: Seconds an answer is waited for.
PATIENCE_SECONDS = 3.0
#: Settings that differ, or workers, named one by one.
_MOST_NAMED = 5
#: Components of the health document that nothing else here looks at.
_COMPONENTS = ("failures", "queues", "circuits", "budgets")

_NOTHING_TO_COMPARE = "there is no configuration here to compare with"


class Service:
    """The service as it was first found, so that each look need not ask again."""

    def __init__(self, client: Client | Exception, settings: Settings) -> None:
        """`client` is why there is none where none could be made."""
        self.client = client if isinstance(client, Client) else None
        self.settings = settings
        self.health: Health | None = None
        self.failure = "" if isinstance(client, Client) else str(client)
        if self.client:
            try:
                self.health = self.client.health()
            except (ServiceUnreachable, ApiError, ConfigurationError, InvalidArgument) as error:
                # What to do about it is for the finding to say.
                self.failure = str(error).partition(" Start it with ")[0]

    def close(self) -> None:
        """Close its connections."""
        if self.client:
            self.client.close()

    @property
    def workers(self) -> list[WorkerHealth]:
        """Live workers."""
        return self.health.components.workers.workers if self.health else []


def look_at_api(service: Service) -> Iterator[Finding]:
    """Whether the API answers, takes jobs, and runs this release and this configuration."""
    if service.client is None or service.health is None:
        yield fail("API", service.failure, "start it: `dspy-jobs up`, or name its address with --url")
        return
    yield ok("API", f"answers at {service.client.url}, {service.health.status}")
    if service.client.ready():
        yield ok("API ready", "it takes jobs")
    else:
        yield fail("API ready", "it takes no jobs", "; ".join(service.health.problems) or "see `GET /ready`")
    if service.health.version != __version__:
        detail = f"the API is {service.health.version}, and this is {__version__}"
        yield warn("API version", detail, "install the same release everywhere")
    if service.settings.source is None:
        yield skip("API configuration", _NOTHING_TO_COMPARE)
    else:
        yield from _configuration(service.client, service.settings)


def _configuration(client: Client, settings: Settings) -> Iterator[Finding]:
    try:
        theirs, ours = decisive(client.config()), decisive(redacted(settings))
    except KeyError as error:
        detail = f"the API's configuration has no {error}: it is of another release"
        yield warn("API configuration", detail, "install the same release everywhere")
        return
    if different := sorted(_differences(ours, theirs)):
        more = f" and {len(different) - _MOST_NAMED} more" if len(different) > _MOST_NAMED else ""
        detail = f"the API runs another configuration than this one: {', '.join(different[:_MOST_NAMED])}{more} differ"
        yield warn("API configuration", detail, "restart the API with this configuration, or run this with the API's")
    else:
        yield ok("API configuration", "the same as here")


def _differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Paths of the settings that are not the same."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        if ours != theirs:
            yield path
        return
    for name in ours.keys() | theirs.keys():
        yield from _differences(ours.get(name), theirs.get(name), f"{path}.{name}" if path else name)


def look_at_programs(service: Service, survey: Survey) -> Iterator[Finding]:
    """Whether the programs of this configuration are described, in the versions it has."""
    if service.client is None or service.health is None:
        yield skip("programs", "the API does not answer")
        return
    if service.health.components.programs.status == "unknown":
        yield skip("programs", "Redis, which knows them, does not answer")
        return
    if service.settings.source is None:
        yield skip("programs", _NOTHING_TO_COMPARE)
        return
    described = {program.name: program for program in service.client.programs()}
    configured = service.settings.programs.keys()
    if missing := sorted(configured - described.keys()):
        yield fail(
            "programs",
            f"no worker has described {', '.join(missing)}",
            "restart a worker, or run `python -m worker.describe`",
        )
    if extra := sorted(described.keys() - configured):
        yield warn("programs", f"workers run programs that are not configured here: {', '.join(extra)}", _RESTART)
    shared = [described[name] for name in sorted(configured & described.keys())]
    yield from _versions(shared, survey)


_DESCRIBE = "start a worker with this configuration, or run `python -m worker.describe`"
_RESTART = "restart the workers with this configuration, or run this with theirs"


def _versions(programs: list[Program], survey: Survey) -> Iterator[Finding]:
    if survey.programs is None:
        yield skip("program versions", survey.why_not)
        return
    other = [program.name for program in programs if _versions_of(program) != survey.programs.get(program.name)]
    if other:
        detail = f"workers run other versions than this configuration has: {', '.join(other)}"
        yield warn("program versions", detail, _RESTART)
    elif programs:
        yield ok("program versions", f"{len(programs)} programs, each as configured here")


def _versions_of(program: Program) -> dict[str, Any]:
    return {"version": program.version, "variants": {name: arm.version for name, arm in program.variants.items()}}


def look_at_workers(service: Service) -> Iterator[Finding]:
    """Whether workers live, take jobs, and run this release and this configuration."""
    if service.health is None:
        yield skip("workers", "the API does not answer")
        return
    part = service.health.components.workers
    if part.status in ("degraded", "unhealthy"):
        report = fail if part.status == "unhealthy" else warn
        yield report("workers", part.detail or part.status, "`dspy-jobs up --workers 1`, or see the workers' logs")
    elif part.status == "unknown":
        yield skip("workers", part.detail or "not known")
    else:
        yield ok("workers", f"{part.live} live" if part.live else "none lives, and nothing waits for one")
    yield from _alike(service.workers, service.settings)
    if stuck := [worker.id for worker in service.workers if worker.stuck_threads]:
        detail = f"threads are stuck in programs that never return: {_some(stuck)}"
        yield warn("worker threads", detail, "find what blocks without a deadline, and restart these workers")


def _alike(workers: list[WorkerHealth], settings: Settings) -> Iterator[Finding]:
    digest = config_digest(settings)
    releases = [worker.id for worker in workers if worker.version not in (None, __version__)]
    is_known = settings.source is not None
    configs = [worker.id for worker in workers if is_known and worker.config not in (None, digest)]
    if releases:
        yield warn("worker versions", f"not of the release {__version__}: {_some(releases)}", "restart them")
    if configs:
        yield warn("worker configuration", f"run another configuration than this one: {_some(configs)}", _RESTART)
    if workers and not releases and not configs:
        yield ok("worker versions", f"all of {__version__}{', configured as here' if is_known else ''}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def look_at_components(service: Service) -> Iterator[Finding]:
    """What else the service says of its own health: gates, breakers, waits, budgets."""
    if service.health is None:
        yield skip("queues", "the API does not answer")
        return
    for name, part in service.health.components.by_name().items():
        if name not in _COMPONENTS:
            continue
        if part.status == "unknown":
            yield skip(name, part.detail or "not known")
        elif part.status == "healthy":
            yield ok(name, _in_order(service.health, name))
        else:
            report = fail if part.status == "unhealthy" else warn
            yield report(name, part.detail or part.status, _REMEDIES[name])


_REMEDIES = {
    "failures": "`dspy-jobs list --status failed`; a worker's log says where a program raised (`raised_at`)",
    "queues": "docs/runbook.md says what each reason means and what to do",
    "circuits": "look at the provider; configure `fallbacks` so that jobs go on meanwhile",
    "budgets": "`dspy-jobs budgets`; raise it in [budgets] and restart the workers",
}


def _in_order(health: Health, name: str) -> str:
    parts = health.components
    return {
        "failures": "no program fails more often than by chance",
        "queues": f"{len(parts.queues.queues)} open, nothing has waited too long",
        "circuits": f"{len(parts.circuits.models)} closed",
        "budgets": f"{len(parts.budgets.budgets)} set, none of all clients used up",
    }[name]
