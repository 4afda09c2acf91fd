"""The autoscaler's command line: ``python -m autoscaler run``, ``simulate`` and ``conformance``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autoscaler import conformance, run_command, simulate_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a wrong command line exits with 2."""
    parser = argparse.ArgumentParser(prog="python -m autoscaler", description="Scale workers as KEDA would.")
    commands = parser.add_subparsers(dest="command", required=True)
    run_command.add_arguments(commands.add_parser("run", help="run as many workers as a ScaledObject asks for"))
    simulate_command.add_arguments(commands.add_parser("simulate", help="play a trace to a ScaledObject"))
    command = commands.add_parser("conformance", help="check our decisions against recorded vectors")
    command.add_argument("file", type=Path, metavar="FILE.json", help="a list of conformance vectors")
    options = parser.parse_args(arguments)
    if options.command == "conformance":
        return conformance.main(options.file)
    return run_command.main(options) if options.command == "run" else simulate_command.main(options)


if __name__ == "__main__":
    sys.exit(main())
