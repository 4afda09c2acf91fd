"""The autoscaler's command line: ``python -m autoscaler conformance FILE.json``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autoscaler import conformance


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a wrong command line exits with 2."""
    parser = argparse.ArgumentParser(prog="python -m autoscaler", description="Scale workers as KEDA would.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("conformance", help="check our decisions against recorded vectors")
    command.add_argument("file", type=Path, metavar="FILE.json", help="a list of conformance vectors")
    options = parser.parse_args(arguments)
    return conformance.main(options.file)


if __name__ == "__main__":
    sys.exit(main())
