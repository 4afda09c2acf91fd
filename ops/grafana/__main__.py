"""Writes each dashboard as the JSON file Grafana loads."""

from __future__ import annotations

from ops.grafana.dashboards import DASHBOARDS
from ops.grafana.files import path_of, text_of

for dashboard in DASHBOARDS:
    path_of(dashboard).write_text(text_of(dashboard))
