"""`python -m benchmarks [NAME …]`: run measurements, print their tables; exit code 0 whether or not targets hold."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import orjson

from benchmarks import (
    autoscaling,
    http_requests,
    idle_latency,
    instruments,
    machine,
    memory,
    reuse,
    run_rate,
    scaling,
    tracing,
    upload,
)
from benchmarks.options import Options
from benchmarks.report import Report, table

MEASUREMENTS: dict[str, Callable[[Options], list[Report]]] = {
    "run_rate": run_rate.measure,
    "reuse": reuse.measure,
    "instruments": instruments.measure,
    "http_requests": http_requests.measure,
    "upload": upload.measure,
    "memory": memory.measure,
    "scaling": scaling.measure,
    "idle_latency": idle_latency.measure,
    "tracing": tracing.measure,
    "autoscaler": autoscaling.measure,
}


class TimeIsUp(BaseException):
    """The limit of the whole run is reached; everything started is ended on the way out."""


def main() -> int:
    """Run what was asked for."""
    asked = _arguments()
    options = Options(asked.rounds, asked.quick, asked.full, asked.seconds_limit)
    signal.signal(signal.SIGALRM, _time_is_up)
    signal.signal(signal.SIGTERM, _asked_to_stop)
    # What is under way when the time is over gets a quarter of it more to come to its end.
    signal.setitimer(signal.ITIMER_REAL, asked.seconds_limit * 1.25)
    facts = machine.facts()
    print(table(["fact", "value"], [[name, value] for name, value in facts.items()]), flush=True)
    records = []
    for name in asked.names or MEASUREMENTS:
        if options.time_is_over:
            print(f"\n{name}: not measured, the time is over (--seconds-limit)", flush=True)
            continue
        records += _measure(name, options)
    if asked.json:
        asked.json.write_bytes(orjson.dumps({"machine": facts, "reports": records}, option=orjson.OPT_INDENT_2))
    return 0


def _measure(name: str, options: Options) -> list[dict[str, Any]]:
    before, began = machine.load(), time.monotonic()
    try:
        reports = MEASUREMENTS[name](options)
    except TimeIsUp:
        print(f"\n{name}: stopped, the time is over (--seconds-limit)", flush=True)
        return []
    reports[-1].notes.append(
        f"load average {before} before, {machine.load()} after; {time.monotonic() - began:.0f} s in all"
    )
    for report in reports:
        print("\n" + report.markdown(), flush=True)
    return [{"name": name, **report.record()} for report in reports]


def _time_is_up(_: int, __: FrameType | None) -> None:
    raise TimeIsUp


def _asked_to_stop(_: int, __: FrameType | None) -> None:
    # An exception, so that everything started is ended on the way out.
    raise SystemExit(143)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MEASUREMENTS, []], metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--rounds", type=_positive, default=3, help="turns of every contender (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs: to see that it runs, not to judge")
    parser.add_argument("--full", action="store_true", help="also 100,000 jobs, which take minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    parser.add_argument(
        "--seconds-limit", type=_positive, default=3600, metavar="N", help="begin nothing new after N seconds"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
