"""`python -m api`: run the HTTP process."""

from __future__ import annotations

import errno
import signal
import socket
import sys
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from dspy_jobs import error_reports, telemetry
from dspy_jobs.line_writer import LineWriter
from dspy_jobs.logs import configure_logging
from dspy_jobs.settings import ApiSettings, ConfigurationError, Settings, load_settings

_log = structlog.get_logger("api")

#: Seconds a stopping process lets answers under way come to their end.
_DRAIN_SECONDS = 10


class _Server(uvicorn.Server):
    """Lets waiting requests answer at once when the process is asked to stop."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Asked to stop before the start was through, there is no room yet.
        if resources := getattr(self.app.state, "resources", None):
            resources.room.close()
        super().handle_exit(sig, frame)


def main() -> int:
    """Run until stopped. Exits 2 where the configuration or the port forbids to start."""
    try:
        settings = load_settings()
        telemetry.check(settings)
        error_reports.check(settings)
        listener = listen(settings.api)
    except (ConfigurationError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    serve(settings, listener)
    return 0


def listen(api: ApiSettings) -> socket.socket:
    """The socket the process listens on.

    Raises:
        OSError: the address cannot be used; the message says what to change.
    """
    family = socket.AF_INET6 if ":" in api.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((api.host, api.port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            detail = f"port {api.port} on {api.host} is in use; set DSPY_JOBS_API_PORT to another"
        else:
            detail = f"cannot listen on {api.host}:{api.port}: {error.strerror}; see DSPY_JOBS_API_HOST and _PORT"
        raise OSError(detail) from None
    return listener


def serve(settings: Settings, listener: socket.socket) -> None:
    """Answer requests until stopped."""
    lines = LineWriter(sys.stdout)
    configure_logging(settings, "api", lines=lines)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=4096,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    # Before uvicorn takes the signals over, and when it raises the one that stopped it once more at its end: a stop
    # that was asked for is no failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    host = f"[{settings.api.host}]" if ":" in settings.api.host else settings.api.host
    url = f"http://{host}:{listener.getsockname()[1]}"
    if settings.log_format == "console":
        lines.msg(f"dspy-jobs API on {url}")
    _log.info("api_listening", url=url)
    _Server(app, config).run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())
