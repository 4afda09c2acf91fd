"""Looks at the models: whether there is a key for each, and whether their providers can be reached from here.

Nothing is paid for. A key is never shown, only the name of the variable it is in.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from dspy_jobs.client import ApiError, Client, ServiceUnreachable, WaitTimeout
from dspy_jobs.doctor.finding import Finding, Verdict, fail, ok, skip
from dspy_jobs.doctor.service import Service
from dspy_jobs.doctor.survey import Survey
from dspy_jobs.money import format_dollars, nanos
from dspy_jobs.settings import ModelSettings, Settings, secret

#: Seconds a provider gets to answer at all.
_PATIENCE_SECONDS = 3.0
#: Seconds a job gets that tries a model.
_JOB_SECONDS = 60.0
#: The built-in program of the short form of a request.
_PROGRAM = "predict"


def look_at_models(settings: Settings, survey: Survey, service: Service) -> Iterator[Finding]:
    """Whether the configuration can be built, and each model has its key."""
    if survey.mistakes:
        yield fail("programs and models", survey.mistakes, "mend it; `dspy-jobs config check` names every mistake")
    if not settings.models:
        yield fail("models", "none is configured", "add [models.…] to dspy-jobs.toml; see docs/configuration.md")
    for name, model in settings.models.items():
        yield _key(name, model, survey.models.get(name), _severity(service))


def _severity(service: Service) -> Verdict:
    """How bad it is that something is missing here: where all workers run elsewhere, it may be there."""
    elsewhere = service.workers and all(worker.host != socket.gethostname() for worker in service.workers)
    return Verdict.WARN if elsewhere else Verdict.FAIL


def _key(name: str, model: ModelSettings, found: dict[str, Any] | None, severity: Verdict) -> Finding:
    check = f"model {name}"
    if found is None:
        variables, has_key = _without_survey(model)
    else:
        variables, has_key = found["variables"], found["has_key"]
    if has_key:
        return ok(check, f"{model.model}, with a key")
    if has_key is None:
        own = f" at {_host(model.base_url)}, asked without a key" if model.base_url else ""
        return ok(check, f"{model.model}{own}") if own else skip(check, f"{model.model}: its key is not known here")
    where = " or ".join(variables) or "its provider's variable"
    return Finding(check, severity, f"{model.model} has no key on this machine", f"set {where} where the workers run")


def _without_survey(model: ModelSettings) -> tuple[list[str], bool | None]:
    """What the settings alone tell of a key: variables, and whether one is there."""
    if model.api_key_env is None:
        return [], None
    return [model.api_key_env], secret(model.api_key_env) is not None


def look_at_addresses(settings: Settings, survey: Survey, service: Service) -> Iterator[Finding]:
    """Whether each provider answers at all, to a question without a key: any answer will do."""
    addresses: dict[str, list[str]] = {}
    for name, model in settings.models.items():
        address = survey.models.get(name, {}).get("address") or model.base_url
        if address:
            addresses.setdefault(address, []).append(name)
    for address, names in addresses.items():
        yield _reached(address, ", ".join(names), _severity(service))


def _reached(address: str, models: str, severity: Verdict) -> Finding:
    check, host = "provider", _host(address)
    try:
        httpx.get(address, timeout=_PATIENCE_SECONDS)
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        remedy = "look at the network, its proxy and its firewall; of a server of your own, whether it runs"
        return Finding(check, severity, f"{host} cannot be reached from here, for {models}: {why}", remedy)
    return ok(check, f"{host} answers, for {models}")


def _host(address: str | None) -> str:
    parts = urlsplit(address or "")
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def look_by_calling(settings: Settings, service: Service) -> Iterator[Finding]:
    """A job of a few tokens on each model, through queue, worker and provider. These calls are paid for."""
    described = service.health and service.client and [program.name for program in service.client.programs()]
    for name in settings.models:
        if not service.client or not described or _PROGRAM not in described:
            yield skip(f"call {name}", f"the program {_PROGRAM} is not described, or the API does not answer")
        else:
            yield _called(service.client, name)


def _called(client: Client, model: str) -> Finding:
    check = f"call {model}"
    try:
        job = client.submit(
            _PROGRAM, {"input": "Answer with the word: well"}, model=model, use_cache=False, priority="high",
            max_attempts=1, timeout_seconds=_JOB_SECONDS, expires_in_seconds=_JOB_SECONDS,
        )  # fmt: skip
        job = client.wait(job.id, timeout=_JOB_SECONDS)
    except WaitTimeout as late:
        return fail(check, str(late), "see the reason it waits for in docs/runbook.md")
    except (ApiError, ServiceUnreachable) as error:
        return fail(check, str(error), "mend what the answer names")
    if job.error:
        return fail(check, f"{job.error.code}: {job.error.detail}", "docs/runbook.md, `dspy-jobs get " + job.id + "`")
    cost = "an unknown cost" if job.cost_usd is None else format_dollars(nanos(job.cost_usd))
    return ok(check, f"answered, for {cost}")
