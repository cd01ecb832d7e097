"""The parts of a dashboard, and their layout as Grafana's JSON. This module contains no metric."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

# https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/ Newer Grafana versions migrate it on load.
SCHEMA_VERSION: Final = 41
GRID_WIDTH: Final = 24
HEIGHT: Final = 8
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
# In a query, HERE stands for the label matchers of the dashboard's variables.
HERE: Final = 'job=~"$job", namespace=~"$namespace", release=~"$release", pod=~"$pod"'


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL query, and the legend of its series in Grafana's format: `{{job}}`."""

    promql: str
    legend: str = ""

    @property
    def expr(self) -> str:
        """The query with HERE replaced. Grafana replaces its own variables."""
        return self.promql.replace("HERE", HERE)


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph. `about` explains it. `most` is the value of a red line and `top` the end of the axis, both in the panel's unit."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    about: str = ""
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    most: float | None = None
    top: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row of panels with a title."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard. `marker` is a metric that every process of its jobs exports; Grafana reads the values of the variables from its labels."""

    name: str
    title: str
    about: str
    rows: Sequence[Row]
    marker: str = "task_manager_build_info"

    def to_json(self) -> dict[str, Any]:
        """Returns the dashboard as the JSON that Grafana imports."""
        return {
            "uid": f"task-manager-{self.name}",
            "title": f"task-manager: {self.title}",
            "description": self.about,
            "tags": ["task-manager"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": False,
            "graphTooltip": 1,  # 1: all panels share the crosshair
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "links": [
                {"type": "dashboards", "title": "task-manager", "tags": ["task-manager"], "asDropdown": True, "keepTime": True, "includeVars": True}
            ],
            "templating": {"list": list(self._variables())},
            "panels": list(self._panels()),
        }

    def _variables(self) -> Iterator[dict[str, Any]]:
        yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
        selected = ""
        for name in ("namespace", "release", "job", "pod"):
            yield _variable(name, f"{self.marker}{{{selected}}}" if selected else self.marker)
            selected += f'{", " if selected else ""}{name}=~"${name}"'

    def _panels(self) -> Iterator[dict[str, Any]]:
        number, y = 0, 0
        for row in self.rows:
            number += 1
            yield {
                "id": number,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": GRID_WIDTH, "h": 1},
                "panels": [],
            }
            x, y = 0, y + 1
            for panel in row.panels:
                if x + panel.width > GRID_WIDTH:
                    x, y = 0, y + HEIGHT
                number += 1
                yield _panel(panel, number, x, y)
                x += panel.width
            y += HEIGHT


def _variable(name: str, metric: str) -> dict[str, Any]:
    query = {"query": f"label_values({metric}, {name})", "refId": name, "qryType": 1}
    everything: dict[str, Any] = {"multi": True, "includeAll": True, "current": {"text": ["All"], "value": ["$__all"]}}
    if name != "job":
        # For `job`, All selects only the jobs that Grafana found, and no other application's. For the other variables, All is `.*`, because without
        # Kubernetes the metrics have no such labels and Grafana finds no values.
        everything["allValue"] = ".*"
    return {"name": name, "type": "query", "datasource": DATASOURCE, "query": query, "refresh": 2, "sort": 1, **everything}


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.most is not None:
        steps.append({"color": "red", "value": panel.most})
    custom = {"fillOpacity": 10, "showPoints": "never", "stacking": {"mode": "normal" if panel.stacked else "none"}}
    if panel.most is not None:
        custom["thresholdsStyle"] = {"mode": "line"}
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.top is not None:
        defaults["max"] = panel.top
    if panel.kind == "timeseries":
        defaults["custom"] = custom
        options: dict[str, Any] = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    else:
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [_target(query, chr(ord("A") + index)) for index, query in enumerate(panel.queries)],
    }


def _target(query: Query, reference: str) -> dict[str, Any]:
    return {"refId": reference, "datasource": DATASOURCE, "expr": query.expr, "legendFormat": query.legend or "__auto"}
