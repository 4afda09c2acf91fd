"""`python -m sandbox`: serve until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import resource
import signal
import sys

import uvloop

from sandbox import NOTICE
from sandbox.server import listen

PORT_SETTING = "DSPY_JOBS_SANDBOX_PORT"
DEFAULT_PORT = 8090


def main() -> int:
    """Run the server; returns the exit code."""
    options = _options()
    _allow_many_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(options.host, options.port))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=NOTICE)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=os.environ.get(PORT_SETTING) or str(DEFAULT_PORT),
        help=f"0 picks a free one (default: {PORT_SETTING}, else {DEFAULT_PORT})",
    )
    return parser.parse_args()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535 (--port or {PORT_SETTING})")
    return int(text)


def _allow_many_connections() -> None:
    """Raise the limit of open files as far as the system lets us: every waiting client holds one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(host: str, port: int) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        bound = await listen(host, port)
    except OSError as error:
        print(_cannot_listen(host, port, error), file=sys.stderr)
        return 2
    print(f"sandbox (not a language model) listens on http://{host}:{bound}", flush=True)
    await stop.wait()
    return 0


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"sandbox: port {port} on {host} is in use; set another with --port or {PORT_SETTING}"
    return f"sandbox: cannot listen on {host}:{port} (--host, --port or {PORT_SETTING}): {error}"


if __name__ == "__main__":
    sys.exit(main())
