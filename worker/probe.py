"""`python -m worker.probe FILE [--ready]`: whether the worker that writes this heartbeat lives, or consumes.

Exits 0, or 1 with the reason on standard error. It loads neither dspy nor the settings, so that asking every few
seconds costs next to nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from worker.heartbeat import complaint_about


def main() -> int:
    """Read one heartbeat."""
    parser = argparse.ArgumentParser(prog="python -m worker.probe", description="Whether a worker lives.")
    parser.add_argument("file", type=Path, metavar="FILE", help="what worker.heartbeat_file names")
    parser.add_argument("--ready", action="store_true", help="whether it also consumes: neither starting nor draining")
    options = parser.parse_args()
    complaint = complaint_about(options.file, options.ready, time.time())
    if complaint:
        print(complaint, file=sys.stderr)
    return 1 if complaint else 0


if __name__ == "__main__":
    sys.exit(main())
