"""Checks whether an API server would accept an object: strict schemas, of the oldest supported and the newest Kubernetes."""

from functools import cache
from typing import Any, Final

import kubernetes_validate
import yaml
from kubernetes_validate import utils

from helm.chart import ROOT, Object
from tests.deploy import crds

_OLDEST: Final = yaml.safe_load((ROOT / "Chart.yaml").read_text())["kubeVersion"].removeprefix(">=").removesuffix(".0-0")
VERSIONS: Final = (_OLDEST, kubernetes_validate.latest_version())

# Without this cache, kubernetes_validate would read the schemas (some megabytes) again for each object.
utils.schema_contents = cache(utils.schema_contents)


def problems(one: Object) -> list[str]:
    """Returns the errors in an object. An unknown kind is an error."""
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
