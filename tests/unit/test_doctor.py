"""What `dspy-jobs doctor` finds on this machine and around it, without a Redis."""

from __future__ import annotations

import json
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dspy_jobs import Client, __version__
from dspy_jobs.cli.exit_codes import ExitCode
from dspy_jobs.config_digest import config_digest
from dspy_jobs.disk_space import DiskSpace
from dspy_jobs.doctor import machine, providers, rounds, surroundings
from dspy_jobs.doctor import service as services
from dspy_jobs.doctor.finding import Finding, Verdict, findings, ok
from dspy_jobs.doctor.service import Service
from dspy_jobs.doctor.survey import Survey, Surveying
from dspy_jobs.redaction import redacted
from dspy_jobs.settings import (
    ApiSettings,
    ModelSettings,
    ProgramSettings,
    SentrySettings,
    Settings,
    TracingSettings,
    WorkerSettings,
)
from tests.unit.http_stand_in import stand_in
from tests.unit.service_scene import health, metrics, worker
from tests.unit.test_cli_commands import run

MODELS = {"fast": ModelSettings(model="openai/gpt", api_key_env="FAST_KEY")}
SETTINGS = Settings(
    models=MODELS, default_model="fast", programs={"qa": ProgramSettings(signature="q -> a")}, source=Path("/here.toml")
)
QA = {"name": "qa", "version": "v1", "model": "fast", "variants": {}}
SURVEY = Survey({"qa": {"version": "v1", "variants": {}}}, {})
HERE = socket.gethostname()


def verdicts(found: Iterator[Finding]) -> dict[str, Verdict]:
    """Each check's verdict."""
    return {finding.check: finding.verdict for finding in found}


def one(found: Iterator[Finding]) -> Finding:
    """The one finding there is."""
    (finding,) = found
    return finding


class Api:
    """Answers like the API; its answers can be changed."""

    def __init__(self, settings: Settings = SETTINGS, **components: Any) -> None:
        mine = [worker(1, config=config_digest(settings), version=__version__)]
        self.health = health(**{"workers": {"live": 1, "workers": mine}, **components})
        self.health["version"] = __version__
        self.config, self.programs, self.is_ready = redacted(settings), [QA], True
        self.job: dict[str, Any] = {"id": "job_1", "status": "succeeded", "program": "predict", "cost_usd": 0.0001}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        path = request.url.path
        if path == "/health":
            return httpx.Response(503 if self.health["status"] == "unhealthy" else 200, json=self.health)
        if path == "/health/ready":
            return httpx.Response(200 if self.is_ready else 503, json={})
        answers = {"/config": self.config, "/v1/programs": {"data": self.programs}, "/metrics": metrics()}
        return httpx.Response(200, json=answers.get(path, self.job))


def service(api: Callable[[httpx.Request], httpx.Response], settings: Settings = SETTINGS) -> Service:
    """The service behind an API."""
    return Service(Client("http://service", transport=httpx.MockTransport(api), retry_seconds=0), settings)


def gone(request: httpx.Request) -> httpx.Response:
    """Nobody answers."""
    raise httpx.ConnectError("Connection refused", request=request)


def test_a_look_that_breaks_is_a_finding_and_the_others_go_on() -> None:
    """A sick installation fails in ways that nobody has thought of."""

    def breaks() -> list[Finding]:
        raise RuntimeError("unheard of")

    found = list(findings([("odd", breaks), ("well", lambda: [ok("well", "it is")])]))
    assert [(f.check, f.verdict) for f in found] == [("odd", Verdict.FAIL), ("well", Verdict.OK)]
    assert "unheard of" in found[0].detail


def test_python_and_packages_are_held_against_the_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    """This environment's Python is fine; a package of another version, or a missing one, is named with the mending."""
    monkeypatch.setattr(
        machine, "requires", lambda _: ["httpx>=0.28", "orjson>=3; extra == 'api'", "ruff<0; extra == 'dev'"]
    )
    assert verdicts(machine.look_at_python()) == {"Python": Verdict.OK, "packages": Verdict.OK}
    monkeypatch.setattr(machine, "requires", lambda _: ["httpx<0.1", "no-such-thing>=1", "nor-this; extra == 'api'"])
    found = {finding.check: finding for finding in machine.look_at_python()}["packages"]
    assert found.verdict == Verdict.FAIL
    assert "httpx is " in found.detail
    assert "no-such-thing is missing" in found.detail
    assert "nor-this" not in found.detail
    assert "requirements.txt" in found.remedy


def test_few_open_files_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's threads need some each."""
    settings = Settings(worker=WorkerSettings(concurrency=128))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    found = one(machine.look_at_files(settings))
    assert (found.verdict, "`ulimit -n 512`" in found.remedy) == (Verdict.WARN, True)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (512, 4096))
    assert one(machine.look_at_files(settings)).verdict == Verdict.OK


def test_a_disk_is_looked_at_where_redis_is_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its room counts; a Redis elsewhere, or none yet, is not looked at."""
    embedded = Settings(data_dir=tmp_path)
    assert one(machine.look_at_disk(embedded)).verdict == Verdict.OK
    monkeypatch.setattr(machine, "disk_space", lambda _: DiskSpace(2**20, 2**40, 2**20))
    assert one(machine.look_at_disk(embedded)).verdict == Verdict.FAIL
    assert one(machine.look_at_disk(Settings(data_dir=tmp_path / "none"))).verdict == Verdict.SKIP
    assert one(machine.look_at_disk(Settings(redis_url="redis://there"))).verdict == Verdict.SKIP


def test_a_strangers_port_is_told_from_a_free_one() -> None:
    """Only while the API does not answer: else the port is its own."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        settings = Settings(api=ApiSettings(port=port))
        found = one(machine.look_at_ports(settings, api_answers=False))
        assert (found.verdict, "DSPY_JOBS_API_PORT" in found.remedy) == (Verdict.FAIL, True)
        assert not list(machine.look_at_ports(settings, api_answers=True))
    assert one(machine.look_at_ports(settings, api_answers=False)).verdict == Verdict.OK


def test_the_services_own_api_is_no_stranger_on_its_port() -> None:
    """Who asked another address by mistake must not be told to stop the API that is well."""
    with stand_in() as scene:
        scene.answer("/health/live", {"status": "ok", "version": "0.1.0"})
        settings = Settings(api=ApiSettings(port=int(scene.url.rpartition(":")[2])))
        found = one(machine.look_at_ports(settings, api_answers=False))
    assert (found.verdict, "DSPY_JOBS_URL" in found.remedy, "stop" in found.remedy) == (Verdict.WARN, True, False)


def test_without_a_configuration_nothing_is_compared() -> None:
    """Run outside of the project it must not ask for a restart with defaults."""
    alone = Settings()
    found = service(Api(), alone)
    looks = (services.look_at_api(found), services.look_at_workers(found), services.look_at_programs(found, SURVEY))
    all_found = [finding for look in looks for finding in look]
    assert {finding.verdict for finding in all_found} == {Verdict.OK, Verdict.SKIP}
    told = rounds._configuration(alone)
    assert (told.verdict, "DSPY_JOBS_CONFIG" in told.remedy) == (Verdict.WARN, True)
    assert rounds._configuration(SETTINGS).verdict == Verdict.OK


def test_a_service_that_is_well_has_no_findings_but_ok() -> None:
    """Ready, of this release and configuration, its programs described, its workers alike."""
    found = service(Api())
    looks = (services.look_at_api, services.look_at_workers, services.look_at_components)
    all_found = [finding for look in looks for finding in look(found)]
    all_found += services.look_at_programs(found, SURVEY)
    assert {finding.verdict for finding in all_found} == {Verdict.OK}


def test_a_service_that_is_not_there_is_one_finding() -> None:
    """With how to start it; what only it could tell is not looked at."""
    found = service(gone)
    failed = one(services.look_at_api(found))
    assert (failed.verdict, "dspy-jobs up" in failed.remedy) == (Verdict.FAIL, True)
    assert "Connection refused" in failed.detail
    for look in (services.look_at_workers, services.look_at_components):
        assert one(look(found)).verdict == Verdict.SKIP
    assert one(services.look_at_programs(found, SURVEY)).verdict == Verdict.SKIP


def test_another_release_and_another_configuration_are_told() -> None:
    """Which settings differ is named by their paths; what may differ from host to host is not."""
    api = Api()
    api.health["version"] = "0.0.9"
    api.config["jobs"]["max_attempts"] = 7
    api.config["models"]["fast"]["model"] = "openai/other"
    api.config["api"]["port"] = 1
    api.is_ready = False
    found = {finding.check: finding for finding in services.look_at_api(service(api))}
    assert found["API ready"].verdict == Verdict.FAIL
    assert found["API version"].verdict == Verdict.WARN
    assert "jobs.max_attempts, models.fast.model differ" in found["API configuration"].detail


def test_programs_are_held_against_this_configuration() -> None:
    """One that nobody described, one that is not configured here, one of another version."""
    api = Api()
    api.programs = [{**QA, "version": "v0"}, {**QA, "name": "old"}]
    settings = SETTINGS.model_copy(
        update={"programs": {**SETTINGS.programs, "new": ProgramSettings(signature="q -> a")}}
    )
    found = list(services.look_at_programs(service(api, settings), SURVEY))
    assert [(f.verdict, f.detail.rpartition(": ")[2].rpartition(" ")[2]) for f in found] == [
        (Verdict.FAIL, "new"), (Verdict.WARN, "old"), (Verdict.WARN, "qa"),
    ]  # fmt: skip
    assert one(services._versions([], Survey(why_not="no dspy here"))).verdict == Verdict.SKIP


@pytest.mark.parametrize(
    ("workers", "check", "verdict"),
    [
        ({"live": 0, "workers": []}, "workers", Verdict.OK),
        ({"status": "unhealthy", "detail": "no worker", "live": 0, "workers": []}, "workers", Verdict.FAIL),
        ({"status": "degraded", "detail": "w is lost"}, "workers", Verdict.WARN),
        ({"status": "unknown"}, "workers", Verdict.SKIP),
        ({"workers": [worker(1, version="0.0.9")]}, "worker versions", Verdict.WARN),
        ({"workers": [worker(1, config="other")]}, "worker configuration", Verdict.WARN),
        ({"workers": [worker(1, stuck_threads=3)]}, "worker threads", Verdict.WARN),
    ],
)
def test_each_fault_of_the_workers_is_found(workers: dict[str, Any], check: str, verdict: Verdict) -> None:
    """A fleet of none is well while nothing waits for one."""
    assert verdicts(services.look_at_workers(service(Api(workers=workers))))[check] == verdict


def test_closed_gates_and_open_breakers_are_told_with_what_to_do() -> None:
    """As the service itself says, each with a remedy."""
    api = Api(
        queues={"status": "degraded", "detail": "dspy.fast is closed (paused)"},
        circuits={"status": "unknown", "models": {}},
        budgets={"status": "degraded", "detail": "used up"},
    )
    found = {finding.check: finding for finding in services.look_at_components(service(api))}
    assert [found[name].verdict for name in ("queues", "circuits", "budgets")] == ["warn", "skip", "warn"]
    assert "paused" in found["queues"].detail
    assert found["queues"].remedy


@pytest.mark.parametrize(("host", "verdict"), [(HERE, Verdict.FAIL), ("elsewhere", Verdict.WARN)])
@pytest.mark.parametrize("survey", [Survey(), Survey(models={"fast": {"has_key": False, "variables": ["FAST_KEY"]}})])
def test_a_missing_key_is_named_by_its_variable(host: str, verdict: Verdict, survey: Survey) -> None:
    """It fails where workers run here; where they run elsewhere they may have it."""
    found = service(Api(workers={"workers": [worker(1, host=host)]}))
    finding = one(providers.look_at_models(SETTINGS, survey, found))
    assert (finding.verdict, "FAST_KEY" in finding.remedy) == (verdict, True)


def test_a_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that there is one."""
    monkeypatch.setenv("FAST_KEY", "hunter2")
    finding = one(providers.look_at_models(SETTINGS, Survey(), service(Api())))
    assert finding.verdict == Verdict.OK
    assert "hunter2" not in str(finding)


def test_a_configuration_that_cannot_be_built_fails() -> None:
    """With what a worker would say of it."""
    found = list(providers.look_at_models(SETTINGS, Survey(mistakes="programs.qa: no such module"), service(Api())))
    assert (found[0].verdict, "no such module" in found[0].detail) == (Verdict.FAIL, True)
    assert one(providers.look_at_models(Settings(), Survey(), service(Api()))).verdict == Verdict.FAIL


def test_any_answer_of_a_provider_will_do() -> None:
    """404 is one; nobody there is none. Models at one address are one question. No key goes along."""
    with stand_in() as scene:
        model = ModelSettings(model="openai/x", base_url=f"{scene.url}/v1")
        settings = Settings(models={"a": model, "b": model}, default_model="a")
        finding = one(providers.look_at_addresses(settings, Survey(), service(Api())))
        assert (finding.verdict, "for a, b" in finding.detail) == (Verdict.OK, True)
        ((_, path, headers, _),) = scene.asked
        assert (path, "Authorization" in headers) == ("/v1", False)
    workers_here = service(Api(workers={"workers": [worker(1, host=HERE)]}))
    finding = one(providers.look_at_addresses(settings, Survey(), workers_here))
    assert (finding.verdict, "cannot be reached" in finding.detail) == (Verdict.FAIL, True)


def test_each_model_is_called_if_asked_for() -> None:
    """By a small job that uses no cache; its end, whatever it is, is told."""
    api = Api()
    found = service(api)
    assert one(providers.look_by_calling(SETTINGS, found)).verdict == Verdict.SKIP
    api.programs = [{**QA, "name": "predict"}]
    assert one(providers.look_by_calling(SETTINGS, found)).verdict == Verdict.OK
    error = {"type": "/problems/auth", "title": "t", "status": 502, "detail": "no such key", "code": "auth"}
    api.job = {**api.job, "status": "failed", "error": {**error, "retryable": False}}
    finding = one(providers.look_by_calling(SETTINGS, found))
    assert (finding.verdict, "auth: no such key" in finding.detail) == (Verdict.FAIL, True)


def test_prometheus_tells_of_its_targets() -> None:
    """Each that is down fails; without Prometheus nothing is looked at."""
    up = {"health": "up", "labels": {"job": "api", "instance": "api:8080"}}
    down = {"health": "down", "lastError": "connection refused", "labels": {"job": "worker", "instance": "w:9100"}}
    with stand_in() as scene:
        scene.answer("/api/v1/targets", {"data": {"activeTargets": [up]}})
        assert one(surroundings.look_at_prometheus(scene.url)).verdict == Verdict.OK
        scene.answer("/api/v1/targets", {"data": {"activeTargets": [up, down]}})
        finding = one(surroundings.look_at_prometheus(scene.url))
        assert (finding.verdict, "w:9100 is down: connection refused" in finding.detail) == (Verdict.FAIL, True)
        scene.answer("/api/v1/targets", b"<html>")
        assert one(surroundings.look_at_prometheus(scene.url)).verdict == Verdict.SKIP
    assert one(surroundings.look_at_prometheus(scene.url)).verdict == Verdict.SKIP


@pytest.mark.parametrize(("status", "verdict"), [(200, "ok"), (401, "ok"), (500, "warn"), (None, "skip")])
def test_flower_may_ask_for_a_password(status: int | None, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is an answer as good as any."""
    with stand_in() as scene:
        if status:
            scene.answer("/healthcheck", b"", status)
        monkeypatch.setattr(surroundings, "flower_url", lambda _: scene.url if status else "http://127.0.0.1:1")
        assert one(surroundings.look_at_flower(SETTINGS)).verdict == verdict


def test_what_a_worker_would_run_is_found_out_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of programs, and of models whether there is a key and where it is looked for; never the key."""
    file = tmp_path / "dspy-jobs.toml"
    file.write_text(
        """default_model = "gpt"
[models.gpt]
model = "openai/gpt-4.1-mini"
[models.claude]
model = "anthropic/claude-sonnet-4-5"
api_key_env = "MY_KEY"
[models.own]
model = "openai/x"
base_url = "http://127.0.0.1:1/v1"
[programs.qa]
signature = "question -> answer"
"""
    )
    for name in [*filter(lambda name: name.startswith("DSPY_JOBS_"), os.environ), "OPENAI_API_KEY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MY_KEY", "hunter2")
    survey = Surveying(Settings(source=file)).result()
    assert not survey.mistakes
    assert survey.programs is not None
    assert len(survey.programs["qa"]["version"]) == 12
    assert {name: model["has_key"] for name, model in survey.models.items()} == {
        "gpt": False, "claude": True, "own": None,
    }  # fmt: skip
    assert survey.models["gpt"]["variables"] == ["OPENAI_API_KEY"]
    assert survey.models["gpt"]["address"].startswith("https://")
    assert survey.models["own"]["address"] == "http://127.0.0.1:1/v1"
    assert "hunter2" not in str(survey)


def test_without_dspy_there_is_no_survey(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would have told is not looked at; everything else is."""
    from dspy_jobs.doctor import survey

    monkeypatch.setattr(survey, "find_spec", lambda _: None)
    assert "dspy is not installed" in Surveying(SETTINGS).result().why_not


def test_a_wrong_configuration_is_the_diagnosis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mistake with its path, exit 1; nothing else can be looked at."""
    file = tmp_path / "dspy-jobs.toml"
    file.write_text("[worker]\nconcurency = 4\n")
    monkeypatch.setenv("DSPY_JOBS_CONFIG", str(file))
    result = run(gone, "doctor", "--json")
    assert result.exit_code == ExitCode.FAILED
    told = json.loads(result.stdout)
    failed = [finding for finding in told["findings"] if finding["verdict"] == "fail"]
    assert (told["ok"], [finding["check"] for finding in failed]) == (False, ["configuration"])
    assert "worker.concurency" in failed[0]["detail"]
    assert "✗ configuration" in run(gone, "doctor").stdout


def test_a_dead_collector_and_a_missing_dsn_are_found() -> None:
    """Each only where it is switched on; spans and reports would be lost without a word to who looks here."""
    assert one(surroundings.look_at_tracing(SETTINGS)).verdict == Verdict.SKIP
    assert one(surroundings.look_at_sentry(SETTINGS)).verdict == Verdict.SKIP
    with stand_in() as scene:
        traced = Settings(tracing=TracingSettings(enabled=True, endpoint=scene.url))
        assert one(surroundings.look_at_tracing(traced)).verdict == Verdict.OK
    assert one(surroundings.look_at_tracing(traced)).verdict == Verdict.WARN
    found = one(surroundings.look_at_sentry(Settings(sentry=SentrySettings(dsn_env="NO_SUCH_DSN"))))
    assert (found.verdict, "NO_SUCH_DSN" in found.remedy) == (Verdict.WARN, True)
