"""`python -m worker.describe`: say what a fleet can run while none runs yet, and exit.

Builds every program as a worker does and publishes descriptions, prices, concurrency and budgets. Before a fleet is
scaled up from nothing somebody has to, or the API would know no program. Exit code 0, 2 for a wrong configuration, 3
without Redis.
"""

from __future__ import annotations

import sys

from redis.exceptions import RedisError

from dspy_jobs.line_writer import LineWriter
from dspy_jobs.logs import adopt_loggers, configure_logging
from dspy_jobs.printed_lines import own_stdout, tell_prints
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import ConfigurationError, load_settings
from dspy_jobs.store import SyncStore, connect


def main() -> int:
    """Describe the configuration that the environment names."""
    try:
        settings = load_settings()
        configure_logging(settings, "describe", lines=LineWriter(own_stdout()))
        tell_prints(settings)
        # Not before a wrong configuration can be told: the app is made from it as it is imported.
        from worker.process import log, publish_all
        from worker.programs import load_programs

        adopt_loggers()
        programs = load_programs(settings)
        with connect(redis_url(settings)) as client:
            store = SyncStore(client)
            store.load_scripts()
            publish_all(store.redis, settings, programs)
    except ConfigurationError as error:
        print(error, file=sys.__stderr__)
        return 2
    except RedisError as error:
        print(f"Redis cannot be reached: {error}; set REDIS_URL or start the stack", file=sys.__stderr__)
        return 3
    log.info("described", programs=sorted(programs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
