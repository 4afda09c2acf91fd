"""The limit: the same program in a thread pool of one process, without any queue.

`python -m benchmarks.bare_dspy` reads orders from its standard input, one JSON object a line, and writes the seconds
each took. Four ways to run a job, each adding what a worker adds:
- `bare`: `dspy.Predict` with `dspy.LM(engine="lm15")`, as its documentation has it and a careful user sets it up;
- `by_hand`: the same with an engine object of one's own, which spares DSPy choosing an engine for each call;
- `guarded`: the same over the guarded engine (deadline, call budget, usage, cost);
- `attempt`: a worker's whole attempt (typed inputs and outputs, outcome as JSON), without Redis and log lines.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import orjson
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.lm15 import RouterConfig

from benchmarks.batch import question
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import load_settings
from dspy_jobs.store import SyncStore, connect
from dspy_jobs.store.records import Claim
from worker.attempt import Runner
from worker.circuit import circuits_of
from worker.context import AttemptContext
from worker.language_models import LanguageModels
from worker.programs import load_programs
from worker.rates import rate_storage
from worker.response_cache import ResponseCache

THREADS = 128

Job = Callable[[str], Any]


def bare_model(model: str, base_url: str) -> dspy.LM:
    """A model as DSPy's documentation has it, without its cache and retries."""
    return dspy.LM(f"openai/{model}", api_base=base_url, api_key="x", engine="lm15", cache=False, num_retries=0)


def model_by_hand(model: str, base_url: str) -> dspy.LM:
    """The same over an engine object, with one connection a thread (the default of 100 is fewer than threads)."""
    provider = "openai-chat"
    config = RouterConfig(api_keys={provider: "x"}, base_urls={provider: base_url}, max_connections=THREADS)
    return dspy.LM(f"openai/{model}", engine=LM15Engine(config), cache=False, num_retries=0)


def bare(model: dspy.LM) -> Job:
    """One module and one adapter for all threads; no history and no trace are kept."""
    predict, adapter = dspy.Predict("question -> answer"), dspy.ChatAdapter()

    def job(text: str) -> str:
        with dspy.context(lm=model, adapter=adapter, disable_history=True, trace=[]):
            answer: str = predict(question=text).answer
            return answer

    return job


def guarded(model: dspy.LM) -> Job:
    """The same with the attempt's context, which the guarded engine asks for."""
    predict, adapter = dspy.Predict("question -> answer"), dspy.ChatAdapter()

    def job(text: str) -> str:
        context = AttemptContext("job", 300, 100)
        with dspy.context(lm=model, adapter=adapter, disable_history=True, trace=[], job=context):
            answer: str = predict(question=text).answer
            return answer

    return job


def attempt(runner: Runner, model: str) -> Job:
    """A worker's attempt from its record to the operation that would publish its outcome."""

    def job(text: str) -> Any:
        request = {"inputs": {"question": text}}
        claim = Claim("job", 1, 0, 0, "", "qa", model, request, 5, 0, 0, (), False)
        settlement = runner.run(claim, request, runner.context_for(claim, request))
        if settlement.status != "succeeded":
            raise RuntimeError(str(settlement.attempt.error))
        return settlement

    return job


def main() -> None:
    """Carry out orders until the input ends."""
    settings = load_settings()
    url = redis_url(settings)
    models = LanguageModels(settings, circuits_of(settings, SyncStore(connect(url))), rate_storage(url))
    runner = Runner(settings, "bench", load_programs(settings), models, ResponseCache(settings))
    urls = {name: model.base_url or "" for name, model in settings.models.items()}
    documented = {name: bare_model(name, url) for name, url in urls.items()}
    by_hand = {name: model_by_hand(name, url) for name, url in urls.items()}
    with ThreadPoolExecutor(THREADS) as pool:
        print("ready", flush=True)
        for line in sys.stdin.buffer:
            order = orjson.loads(line)
            model, way = order["model"], order["way"]
            job = {
                "bare": lambda name: bare(documented[name]),
                "by_hand": lambda name: bare(by_hand[name]),
                "guarded": lambda name: guarded(models.get(name)),
                "attempt": lambda name: attempt(runner, name),
            }[way](model)
            began = time.perf_counter()
            for _ in pool.map(job, map(question, range(order["jobs"]))):
                pass
            print(orjson.dumps({"order": order["number"], "seconds": time.perf_counter() - began}).decode(), flush=True)


if __name__ == "__main__":
    main()
