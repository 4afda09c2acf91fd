"""The autoscaler stays light and alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

LOAD_ALL = """
import importlib, pkgutil, sys
import autoscaler
for module in pkgutil.iter_modules(autoscaler.__path__):
    if module.name != "__main__":
        importlib.import_module(f"autoscaler.{module.name}")
forbidden = {"dspy", "litellm", "api", "worker", "sandbox"}
print(sorted(forbidden & {name.partition(".")[0] for name in sys.modules}))
"""


def test_the_autoscaler_loads_no_neighbour() -> None:
    """Loading every module of the autoscaler loads no neighbouring package and no DSPy."""
    done = subprocess.run([sys.executable, "-c", LOAD_ALL], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
