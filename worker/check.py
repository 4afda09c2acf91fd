"""`python -m worker.check`: build every program and model as a worker does, without Redis and without any call.

Loads every version of a program, also those that nothing runs: a rollback must not find out that it cannot. Exits 0
with what is no mistake but may surprise on standard output, a line each after `WARNING`; or 2 with every mistake on
standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from limits.storage import MemoryStorage

from dspy_jobs import error_reports, telemetry
from dspy_jobs.settings import WARNING, ConfigurationError, Settings, load_settings
from dspy_jobs.store import SyncStore, connect
from worker.circuit import circuits_of
from worker.language_models import LanguageModels
from worker.pricing import prices_per_1k
from worker.programs import load_programs


def main() -> int:
    """Check the configuration that the environment names."""
    try:
        settings = load_settings()
        telemetry.check(settings)
        error_reports.check(settings)
        unused = SyncStore(connect("redis://127.0.0.1"))  # nothing is sent to it
        LanguageModels(settings, circuits_of(settings, unused), MemoryStorage())
        load_programs(settings, every_version=True)
    except ConfigurationError as mistakes:
        print(mistakes, file=sys.stderr)
        return 2
    for warning in _uncounted(settings):
        print(f"{WARNING}{warning}")
    return 0


def _uncounted(settings: Settings) -> Iterator[str]:
    """Models whose calls no budget counts."""
    if not settings.budgets.has_limits:
        return
    priced = prices_per_1k(settings.models)
    for name in settings.models:
        if name not in priced:
            yield (
                f"models.{name}: its price is not known, so its calls do not count against the budgets; "
                "set input_cost_per_1k and output_cost_per_1k"
            )


if __name__ == "__main__":
    sys.exit(main())
