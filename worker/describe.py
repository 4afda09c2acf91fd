"""`python -m worker.describe`: say what a fleet can run while none runs yet, and exit.

Builds every program as a worker does and publishes descriptions, prices, concurrency and budgets. Before a fleet is
scaled up from nothing somebody has to, or the API would know no program. Exit code 0, 2 for a wrong configuration, 3
without Redis, which it waits for: in a cluster both may be started at the same moment.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import redis
import structlog
from redis.exceptions import RedisError

from dspy_jobs.line_writer import LineWriter
from dspy_jobs.logs import adopt_loggers, configure_logging
from dspy_jobs.printed_lines import own_stdout, tell_prints
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import ConfigurationError, load_settings
from dspy_jobs.store import SyncStore, connect

log = structlog.get_logger("worker")

#: Seconds between two tries to reach Redis.
_PAUSE_SECONDS = 1.0


def main() -> int:
    """Describe the configuration that the environment names."""
    options = _arguments()
    try:
        settings = load_settings()
        configure_logging(settings, "describe", lines=LineWriter(own_stdout()))
        tell_prints(settings)
        # Not before a wrong configuration can be told: the app is made from it as it is imported.
        from worker.process import publish_all
        from worker.programs import load_programs

        adopt_loggers()
        programs = load_programs(settings)
        with connect(redis_url(settings)) as client:
            store = SyncStore(client)

            def publish() -> None:
                store.load_scripts()
                publish_all(store.redis, settings, programs)

            patiently(publish, options.wait)
    except ConfigurationError as error:
        print(error, file=sys.__stderr__)
        return 2
    except RedisError as error:
        print(f"Redis cannot be reached: {error}; set REDIS_URL or start the stack", file=sys.__stderr__)
        return 3
    log.info("described", programs=sorted(programs))
    return 0


def patiently(publish: Callable[[], None], seconds: float) -> None:
    """Publish, for so long again and again while Redis cannot be reached or is still reading its file.

    Raises:
        redis.exceptions.RedisError: it was not to be reached in that time, or refused.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return publish()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            if time.monotonic() + _PAUSE_SECONDS > end:
                raise
            log.info("waiting_for_redis", error=str(error))
        time.sleep(_PAUSE_SECONDS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.describe", description="Say what a fleet can run.")
    parser.add_argument(
        "--wait", type=float, default=60, metavar="SECONDS", help="how long to wait for Redis (default: %(default)s)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
