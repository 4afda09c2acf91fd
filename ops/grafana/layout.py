"""Grafana's JSON, from what a panel is about: the model of dashboards of Grafana 10 to 12, schema version 39."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH = 24
HEIGHT = 8


@dataclass(frozen=True)
class Panel:
    """A picture of some queries: each an expression of PromQL and the name of its lines."""

    title: str
    meaning: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    """`timeseries`, `stat`, `table`, `state-timeline`, or `text`, whose meaning is then its Markdown."""
    width: int = 12
    height: int = HEIGHT
    good: float | None = None
    """From here on green, and red below; without it green from the start."""
    warn: float | None = None
    """From here on yellow."""
    bad: float | None = None
    """From here on red."""
    names: tuple[tuple[str, str, str], ...] = ()
    """What values are called, and their colours."""
    is_stacked: bool = False
    nothing: str = ""
    """What is shown of no data, where that is good news; elsewhere it is a fault."""

    def at(self, number: int, x: int, y: int) -> dict[str, Any]:
        """The panel as Grafana has it, at this place."""
        place = {"x": x, "y": y, "w": self.width, "h": self.height}
        head = {"id": number, "type": self.kind, "title": self.title, "gridPos": place}
        if self.kind == "text":
            return head | {"options": {"mode": "markdown", "content": self.meaning}}
        return head | {
            "description": self.meaning,
            "datasource": SOURCE,
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": _OPTIONS.get(self.kind, {}),
            "targets": [self._target(at, *query) for at, query in enumerate(self.queries)],
        }

    def _target(self, at: int, expression: str, name: str) -> dict[str, Any]:
        target = {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expression, "legendFormat": name}
        return target | {"format": "table", "instant": True} if self.kind == "table" else target

    def _defaults(self) -> dict[str, Any]:
        steps = [{"color": "green" if self.good is None else "red", "value": None}]
        steps += [{"color": "green", "value": self.good}] if self.good is not None else []
        steps += [{"color": "yellow", "value": self.warn}] if self.warn is not None else []
        steps += [{"color": "red", "value": self.bad}] if self.bad is not None else []
        defaults: dict[str, Any] = {"unit": self.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
        if self.kind == "timeseries":
            stacking = {"mode": "normal"} if self.is_stacked else {"mode": "none"}
            defaults["custom"] = {"fillOpacity": 20 if self.is_stacked else 0, "stacking": stacking, "spanNulls": False}
        if self.nothing:
            defaults["noValue"] = self.nothing
        if self.names:
            options = {value: {"text": text, "color": color} for value, text, color in self.names}
            defaults["mappings"] = [{"type": "value", "options": options}]
        return defaults


_REDUCED = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {**_REDUCED, "colorMode": "background", "graphMode": "area", "textMode": "auto"},
    "table": {"showHeader": True},
    "state-timeline": {"mergeValues": True, "showValue": "auto", "rowHeight": 0.8},
}


@dataclass(frozen=True)
class Dashboard:
    """Panels under one title, set in rows from left to right."""

    uid: str
    title: str
    meaning: str
    panels: tuple[Panel, ...]
    variables: tuple[tuple[str, str, str], ...] = ()
    """Text that the reader may set: name, label, and what it is at first."""
    links: tuple[tuple[str, str], ...] = ()
    """Titles and addresses beside those of the other dashboards."""

    def document(self) -> dict[str, Any]:
        """The dashboard as Grafana has it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.meaning,
            "schemaVersion": 39,
            "tags": ["dspy-jobs"],
            "timezone": "browser",
            "editable": False,
            "refresh": "15s",
            "graphTooltip": 1,
            "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": [_text_box(*variable) for variable in self.variables]},
            "annotations": {"list": []},
            "links": [_OTHERS, *[_link(*link) for link in self.links]],
            "panels": self._placed(),
        }

    def _placed(self) -> list[dict[str, Any]]:
        placed: list[dict[str, Any]] = []
        x = y = below = 0
        for number, panel in enumerate(self.panels, 1):
            if x + panel.width > WIDTH:
                x, y = 0, below
            placed.append(panel.at(number, x, y))
            x, below = x + panel.width, max(below, y + panel.height)
        return placed


_OTHERS = {
    "type": "dashboards", "title": "dspy-jobs", "tags": ["dspy-jobs"], "asDropdown": False, "keepTime": True,
    "includeVars": False, "targetBlank": False, "icon": "external link", "tooltip": "", "url": "",
}  # fmt: skip


def _link(title: str, url: str) -> dict[str, Any]:
    return _OTHERS | {"type": "link", "title": title, "url": url, "tags": [], "targetBlank": True}


def _text_box(name: str, label: str, value: str) -> dict[str, Any]:
    current = {"text": value, "value": value, "selected": False}
    return {"type": "textbox", "name": name, "label": label, "query": value, "current": current, "options": [current]}
