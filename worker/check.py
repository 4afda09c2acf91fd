"""`python -m worker.check`: build every program and model as a worker does, without Redis and without any call.

Exits 0, or 2 with every mistake on standard error.
"""

from __future__ import annotations

import sys

from limits.storage import MemoryStorage

from dspy_jobs.settings import ConfigurationError, load_settings
from dspy_jobs.store import SyncStore, connect
from worker.circuit import circuits_of
from worker.language_models import LanguageModels
from worker.programs import load_programs


def main() -> int:
    """Check the configuration that the environment names."""
    try:
        settings = load_settings()
        unused = SyncStore(connect("redis://127.0.0.1"))  # nothing is sent to it
        LanguageModels(settings, circuits_of(settings, unused), MemoryStorage())
        load_programs(settings)
    except ConfigurationError as mistakes:
        print(mistakes, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
