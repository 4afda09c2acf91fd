"""`python -m worker.flower`: Flower for this service, with what it may show to whom settled by our own settings.

Beyond this machine nobody gets in without the credentials of `FLOWER_BASIC_AUTH`, and it does not start without them.
On this machine alone, where there are none, it shows and does nothing. What it remembers it keeps in the data folder.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import tornado.web
from celery import Celery
from celery.events.state import State
from flower.app import Flower
from flower.command import apply_env_options, extract_settings
from flower.options import options
from flower.urls import settings as handler_settings
from flower.views import BaseHandler
from flower.views.monitor import Metrics
from flower.views.tasks import TasksView
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import PeriodicCallback

from dspy_jobs.addresses import is_loopback
from dspy_jobs.line_writer import LineWriter
from dspy_jobs.logs import configure_logging
from dspy_jobs.redis_url import redis_url
from dspy_jobs.settings import ConfigurationError, Settings, load_settings, secret
from dspy_jobs.store import connect
from worker.broker import broker_app
from worker.flower_truth import Truth

#: Seconds after which a worker that is gone is shown no more.
_PURGE_SECONDS = 300
#: Seconds between looks for jobs that ended unheard.
_TRUTH_SECONDS = 2
#: Upper bounds (seconds) of Flower's own histogram of run times.
_BUCKETS = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0]
#: Behind everything else where processors are short: at full speed it works as hard as a worker, only to look on.
_NICE = 10
#: Loggers that tell of each request, and of each round without a worker.
_CHATTY = ("tornado.access", "flower.inspector", "kombu.mixins")
_COLUMNS = "name,uuid,state,args,received,runtime,kwargs,exception,worker"


#: Runs once Flower's own script has made the table. Takes the words from the address itself, so that none of them is
#: ever a part of the page.
_SEARCHING = b"""<script>
jQuery(function ($) {
  var wanted = new URLSearchParams(window.location.search).get("search");
  if (wanted) { $("#tasks-table").DataTable().search(wanted).draw(); }
});
</script>
"""


def credentials(settings: Settings) -> list[str]:
    """Who may use Flower, each as `name:password`; nobody in particular where only this machine can reach it.

    Raises:
        ConfigurationError: they are missing or cannot be meant.
    """
    given = [word for word in (secret("FLOWER_BASIC_AUTH") or "").split(",") if word]
    if not all(name and password for name, _, password in (word.partition(":") for word in given)):
        raise ConfigurationError("FLOWER_BASIC_AUTH: not name:password, or several of these divided by commas")
    if not given and not is_loopback(settings.flower.host):
        raise ConfigurationError(
            f"flower.host is {settings.flower.host}, so others can reach Flower: set FLOWER_BASIC_AUTH=name:password, "
            "or FLOWER_BASIC_AUTH_FILE to a file that holds it"
        )
    return given


def flower_app(settings: Settings, app: Celery) -> Flower:
    """Flower as these settings have it; listens to nothing yet.

    Raises:
        ConfigurationError: credentials are missing or cannot be meant.
    """
    users = credentials(settings)
    folder = settings.data_dir / "flower"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    apply_env_options()  # an operator may set more, by Flower's own FLOWER_* variables
    _set(
        address=settings.flower.host,
        port=settings.flower.port,
        url_prefix=(settings.flower.url_prefix or "").strip("/"),
        basic_auth=users,
        read_only=options.read_only or not users,
        persistent=True,
        db=str(folder / "state"),
        state_save_interval=int(settings.flower.save_seconds * 1000),
        max_tasks=settings.flower.max_tasks,
        purge_offline_workers=_PURGE_SECONDS,
        task_runtime_metric_buckets=_BUCKETS,
        tasks_columns=_COLUMNS,
    )
    extract_settings()
    Metrics.get = tornado.web.authenticated(Metrics.get)  # Flower itself tells them to everybody
    TasksView.render_string = _searching
    kind = Flower if users else _OfThisMachine
    page = kind(capp=app, options=options, **handler_settings)
    options.format_task = _readable(page.events.state)
    if prefix := settings.flower.url_prefix:
        page.add_handlers(".*", [(prefix, tornado.web.RedirectHandler, {"url": f"{prefix}/"})])
    return page


class _OfThisMachine(Flower):
    """Flower without credentials. Any web site can lend its own name this machine's address and have a browser ask."""

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """What answers a request: nothing but a refusal where it was meant for another name than this machine's."""
        if is_loopback(request.host_name.strip("[]")):
            return super().find_handler(request, **kwargs)
        return self.get_handler_delegate(request, tornado.web.ErrorHandler, {"status_code": 421})


def main() -> int:
    """Run until SIGTERM or SIGINT. Exit code 2 for a wrong configuration."""
    try:
        settings = load_settings()
        configure_logging(settings, "flower", lines=LineWriter(sys.stdout))
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        page = flower_app(settings, broker_app(settings))
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    atexit.register(page.stop)  # saves what it remembers
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    os.nice(_NICE)
    page.start_http_server()
    truth = Truth(connect(redis_url(settings)), page.events.state)
    PeriodicCallback(truth.look, _TRUTH_SECONDS * 1000).start()
    page.start()
    return 0


def _readable(state: State) -> Callable[[Any], Any]:
    """What makes tasks fit for pages; it is given copies, which have lost their children."""

    def readable(task: Any) -> Any:
        task.children = state.tasks.data[task.uuid].children
        if isinstance(task.kwargs, dict):
            task.kwargs = str(task.kwargs)
        return task

    return readable


def _searching(page: TasksView, template_name: str, **kwargs: Any) -> bytes:
    """Flower's list of tasks, with a script that searches for what the address asks for.

    Flower itself takes only `state`, `worker` and `name` from an address; a link to a batch's jobs needs `search`.
    """
    shown: bytes = BaseHandler.render_string(page, template_name, **kwargs)
    return shown.replace(b"</body>", _SEARCHING + b"</body>")


def _set(**values: Any) -> None:
    for name, value in values.items():
        setattr(options, name, value)


if __name__ == "__main__":
    sys.exit(main())
