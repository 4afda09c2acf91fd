"""What a service's processes write while jobs end in all ways: lines of one shape, and nothing callers gave or got."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from dspy_jobs.settings import Settings
from dspy_jobs.store import SyncStore
from dspy_jobs.waiting import wait_until
from tests.conftest import ROOT
from tests.system.fleet import Fleet

#: What no line may hold: inputs, metadata, a provider's key, its answers.
INPUT, METADATA, KEY, ANSWER = "INPUT-mark-7a1f", "METADATA-mark-7a1f", "our secret 7a1f", "ANSWER-mark-7a1f"

_ENDS = ("job_succeeded", "job_failed", "job_expired")

FAULTS = {"refuses": 401, "dislikes": 400, "fails": 500}


class _Provider(BaseHTTPRequestHandler):
    """Echoes key and prompt in its errors, and answers `unreadable` without the fields it was asked for."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        model = json.loads(body)["model"]
        said = f"Incorrect API key: {self.headers['Authorization']}. You asked: {body}"
        self._answer(
            FAULTS.get(model, 200), _completion(model) if model not in FAULTS else {"error": {"message": said}}
        )

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        raw = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def _completion(model: str) -> dict[str, Any]:
    text = ANSWER if model == "unreadable" else f"[[ ## answer ## ]]\n{ANSWER}\n\n[[ ## completed ## ]]"
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": usage}


@pytest.fixture
def provider() -> Iterator[str]:
    """The address of a provider that tells all it knows."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


CONFIG = """
[worker]
concurrency = 4
[programs.qa]
signature = "question -> answer"
[programs.blurts]
factory = "tests.programs:blurts"
"""


class Service:
    """An API process and a worker, and all they write, standard error included."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._fleet = fleet
        self._written = folder / "api.log"
        fleet.environ |= {"ACME_API_KEY": KEY, "DSPY_JOBS_API_PORT": "0", "PYTHONPATH": str(ROOT)}
        with self._written.open("ab") as log:
            command = [sys.executable, "-m", "api"]
            process = subprocess.Popen(command, env=fleet.environ, stdout=log, stderr=log, cwd=folder)
        fleet.processes.append(process)
        fleet.start()
        assert wait_until(lambda: any(line["event"] == "api_listening" for line in self.lines()), 30)
        url = next(line["url"] for line in self.lines() if line["event"] == "api_listening")
        self.client = httpx.Client(base_url=url, timeout=30)

    @property
    def text(self) -> str:
        """All they have written."""
        return self._written.read_text() + self._fleet.log()

    def lines(self) -> list[dict[str, Any]]:
        """The same, line by line; each must be an event."""
        return [orjson.loads(line) for line in self.text.splitlines(keepends=True) if line.endswith("\n")]

    def of(self, event: str) -> list[dict[str, Any]]:
        """The events of that name."""
        return [line for line in self.lines() if line["event"] == event]

    def predict(self, program: str, model: str = "fine") -> str:
        """Run a job to its end; answers its id."""
        field = "question" if program == "qa" else "text"
        body = {"program": program, "model": model, "inputs": {field: INPUT}, "metadata": {"who": METADATA}}
        headers = {"X-Request-Id": f"request-{model}-{program}"}
        answer = self.client.post("/v1/predict", json={**body, "max_attempts": 1}, headers=headers).json()
        return str(answer.get("id") or answer["job_id"])

    def stop(self) -> None:
        """Stop both in order."""
        self.client.close()
        for process in self._fleet.processes:
            process.terminate()
            process.wait(30)


@pytest.fixture
def service(
    write_config: Callable[..., Settings],
    store: SyncStore,
    child_environ: dict[str, str],
    tmp_path: Path,
    provider: str,
) -> Iterator[Service]:
    """A service whose models are the provider's."""
    models = "".join(
        f'[models.{name}]\nmodel = "openai/{name}"\nbase_url = "{provider}"\napi_key_env = "ACME_API_KEY"\n'
        for name in ("fine", "unreadable", *FAULTS)
    )
    models += models.replace("[models.", "[models.lite_").replace("api_key_env", 'engine = "litellm"\napi_key_env')
    settings = write_config(models + CONFIG)
    own = {"DSPY_JOBS_CONFIG": str(settings.source), "DSPY_JOBS_LOG_FORMAT": "json"}
    own |= {"DSPY_JOBS_LOG_LEVEL": "debug", "DSPY_JOBS_LOG_LEVELS": "LiteLLM=debug, httpx=debug, celery=debug"}
    fleet = Fleet(settings, store, {**child_environ, **own}, tmp_path / "worker.log")
    yield Service(fleet, tmp_path)
    fleet.end()


def test_no_line_holds_what_callers_gave_or_got(service: Service) -> None:
    """Through success, errors that echo prompt and key, answers that cannot be read, and programs that tell all."""
    runs = [("qa", "fine"), ("qa", "unreadable"), *(("qa", fault) for fault in FAULTS), ("blurts", "fine")]
    jobs = {service.predict(program, model): (program, model) for program, model in runs}
    again = service.predict("qa")
    assert service.client.post("/v1/jobs", json={"program": "qa", "inputs": {INPUT: METADATA}}).status_code == 422
    assert service.client.post("/v1/jobs", content=INPUT).status_code in (400, 415)
    canceled = _cancel_one(service)
    service.stop()
    _no_line_holds_a_mark(service)
    (told,) = service.of("job_canceled")
    assert (told["job_id"], told["request_id"], told["process"]) == (canceled, "the-cancelation", "api")
    ends = [line for line in service.lines() if line["event"] in _ENDS]
    assert sorted(line["job_id"] for line in ends) == sorted([*jobs, again])
    assert Counter(line["event"] for line in ends) == {"job_succeeded": 2, "job_failed": 5}
    _request_leads_to_job(service)
    _program_is_told(service, next(job_id for job_id, run in jobs.items() if run[0] == "blurts"))


@pytest.mark.slow
def test_litellms_own_words_go_the_same_way(service: Service) -> None:
    """It logs prompts and keys, and brings handlers of its own when it is loaded with the first call."""
    for model in ("lite_refuses", "lite_fails", "lite_unreadable", "lite_fine"):
        service.predict("qa", model)
    service.stop()
    _no_line_holds_a_mark(service)
    assert [line for line in service.of("library_message") if line["logger"].startswith("LiteLLM")]


def _cancel_one(service: Service) -> str:
    """Cancel a job that waits; answers its id."""
    service.client.post("/v1/queues/dspy.fine/pause")
    body = {"program": "blurts", "model": "fine", "inputs": {"text": INPUT}}
    job_id = str(service.client.post("/v1/jobs", json=body).json()["id"])
    service.client.post(f"/v1/jobs/{job_id}/cancel", headers={"X-Request-Id": "the-cancelation"})
    return job_id


def _no_line_holds_a_mark(service: Service) -> None:
    for mark in (INPUT, METADATA, KEY, ANSWER):
        assert mark not in service.text
    assert all(list(line)[:4] == ["time", "level", "process", "event"] for line in service.lines())


def _request_leads_to_job(service: Service) -> None:
    """The API's line of a request and the worker's of its job have both ids in common."""
    asked = {line["request_id"]: line["job_id"] for line in service.of("request") if line["path"] == "/v1/predict"}
    ended = {line["request_id"]: line["job_id"] for line in service.lines() if line["event"] in _ENDS}
    assert asked == ended
    (hit,) = [line for line in service.of("job_succeeded") if line["cache"] == "hit"]
    (miss,) = [line for line in service.of("job_succeeded") if line["cache"] == "miss"]
    assert (miss["input_tokens"], miss["output_tokens"], miss["calls"], hit["calls"]) == (7, 5, 1, 0)


def _program_is_told(service: Service, job_id: str) -> None:
    """Whatever it said has left a line that bears its job, but for a thread of its own making."""
    said = [line for line in service.lines() if line.get("job_id") == job_id and line["level"] != "debug"]
    found = Counter((line["event"], line.get("logger", "")) for line in said)
    assert found["printed", ""] >= 3
    assert found["library_message", "blurts"] == 4
    assert found["warning", ""] == 1
    assert found["error_ignored", ""] == 1
    assert found["library_message", "asyncio"] == 2
    assert found["library_message", "dspy.utils.parallelizer"] >= 1
    assert {line.get("message") for line in said} >= {"a literal text, and %s", "its own event"}
    assert len(service.of("thread_broke")) == 1
