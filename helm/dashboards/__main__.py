"""Writes each dashboard into the chart as one JSON file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from helm.dashboards.feed import FEED
from helm.dashboards.gateway import GATEWAY
from helm.dashboards.overview import OVERVIEW
from helm.dashboards.scaling import SCALING
from helm.dashboards.stores import STORES

DASHBOARDS: Final = (OVERVIEW, STORES, FEED, GATEWAY, SCALING)
FOLDER: Final = Path(__file__).resolve().parents[1] / "task-manager" / "charts" / "monitoring" / "dashboards"


def files() -> Mapping[str, str]:
    """Returns the JSON text of each dashboard, by file name."""
    return {f"{one.name}.json": json.dumps(one.to_json(), indent=1, ensure_ascii=False) + "\n" for one in DASHBOARDS}


def write() -> None:
    """Writes all dashboards."""
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
