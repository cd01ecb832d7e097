"""Renders the chart with Helm 4 as a library. It needs no cluster, no network and no `helm` program."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from helm_python import Chart

ROOT: Final = Path(__file__).resolve().parent / "task-manager"
SCENARIOS: Final = tuple(sorted((ROOT / "ci").glob("*-values.yaml")))

Object = dict[str, Any]


def read_values(file: Path) -> dict[str, Any]:
    """Reads a values file."""
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    return values


def render(values: Mapping[str, Any], *, name: str = "task-manager", namespace: str = "task-manager") -> list[Object]:
    """Returns the objects that Helm applies, including those of `helm test`. Raises helm_python.HelmError with the message that `helm` prints."""
    return [
        found
        for file, text in texts(values, name=name, namespace=namespace).items()
        if file.endswith(".yaml")
        for found in yaml.safe_load_all(text)
        if found
    ]


def texts(values: Mapping[str, Any], *, name: str = "task-manager", namespace: str = "task-manager") -> dict[str, str]:
    """Returns the rendered text of each template by its path, with comments."""
    with Chart.load(ROOT) as chart:
        return chart.render(dict(values), name=name, namespace=namespace)
