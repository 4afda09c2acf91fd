"""Where a dashboard's JSON lies and what stands in it."""

from __future__ import annotations

import json
from pathlib import Path

from ops.grafana.layout import Dashboard


def path_of(dashboard: Dashboard) -> Path:
    """The file Grafana loads."""
    return Path(__file__).parent / f"{dashboard.uid}.json"


def text_of(dashboard: Dashboard) -> str:
    """What stands in that file."""
    return json.dumps(dashboard.document(), indent=2, ensure_ascii=False) + "\n"
