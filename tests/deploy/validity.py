"""Whether an API server would take an object: strictly by its schema, in the oldest and the newest Kubernetes that the chart is for."""

from functools import cache
from typing import Any, Final

import kubernetes_validate
import yaml
from kubernetes_validate import utils

from helm.chart import ROOT, Object
from tests.deploy import crds

_OLDEST: Final = yaml.safe_load((ROOT / "Chart.yaml").read_text())["kubeVersion"].removeprefix(">=").removesuffix(".0-0")
VERSIONS: Final = (_OLDEST, kubernetes_validate.latest_version())

# The schemas, some megabytes, would be read again for each object.
utils.schema_contents = cache(utils.schema_contents)


def problems(one: Object) -> list[str]:
    """What is wrong with an object. A kind that nobody knows is wrong."""
    if one["kind"] in crds.SOURCES:
        return crds.problems(one)
    return [line for version in VERSIONS for line in _core(one, version)]


def _core(one: Object, version: str) -> list[str]:
    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    except kubernetes_validate.ValidationError as error:
        path: Any = error.path
        return [f"Kubernetes {version}: {'.'.join(map(str, path))}: {error.message}"]
    return []
