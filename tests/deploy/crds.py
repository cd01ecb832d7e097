"""Schemas of the kinds that are not part of Kubernetes, from the CRDs in the Go modules of their projects.

`python -m tests.deploy.crds` rewrites `crds/*.json`; it needs `go`. The CEL rules that some CRDs have are not checked.
"""

import json
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import yaml

FOLDER: Final = Path(__file__).parent / "crds"
# The source of each CRD: Go module and version, and the file in it.
_GATEWAY: Final = ("sigs.k8s.io/gateway-api@v1.6.3", "config/crd/standard/gateway.networking.k8s.io_{}.yaml")
_PROMETHEUS: Final = ("github.com/prometheus-operator/prometheus-operator@v0.85.0", "example/prometheus-operator-crd/monitoring.coreos.com_{}.yaml")
_ISTIO: Final = ("istio.io/api@v1.32.0", "kubernetes/customresourcedefinitions.gen.yaml")
_EVERY: Final = ("apiVersion", "kind", "metadata")
_LEFT_OUT: Final = re.compile(r"description|default|x-kubernetes-(validations|list-.*|map-type)")
SOURCES: Final = {
    "HTTPRoute": (_GATEWAY[0], _GATEWAY[1].format("httproutes")),
    "GRPCRoute": (_GATEWAY[0], _GATEWAY[1].format("grpcroutes")),
    "PodMonitor": (_PROMETHEUS[0], _PROMETHEUS[1].format("podmonitors")),
    "PrometheusRule": (_PROMETHEUS[0], _PROMETHEUS[1].format("prometheusrules")),
    "PeerAuthentication": _ISTIO,
    "AuthorizationPolicy": _ISTIO,
}


def problems(found: dict[str, Any]) -> list[str]:
    """Returns the errors in an object of one of these kinds."""
    schema = _schemas(found["kind"]).get(found["apiVersion"])
    if schema is None:
        return [f"there is no {found['kind']} in {found['apiVersion']}"]
    # Not every CRD has a schema for the fields that all objects have.
    own = {name: part for name, part in found.items() if name not in _EVERY}
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(own)]


@cache
def _schemas(kind: str) -> dict[str, Any]:
    """Returns the strict schema of each version of a kind."""
    schemas: dict[str, Any] = json.loads((FOLDER / f"{kind}.json").read_text())
    return {version: _strict(schema) | {"required": ["spec"]} for version, schema in schemas.items()}


def _strict(schema: Any) -> Any:
    """Returns the schema with unknown fields forbidden wherever it lists properties. An API server would drop them silently."""
    if not isinstance(schema, dict):
        return [_strict(part) for part in schema] if isinstance(schema, list) else schema
    result = {name: _strict(part) for name, part in schema.items() if name not in {"properties", "format"}}
    if "properties" in schema:
        result["properties"] = {name: _strict(part) for name, part in schema["properties"].items()}
        if schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    return result


def definition(kind: str) -> dict[str, Any]:
    """Returns the complete CRD of a kind, from its project's Go module. It needs `go`."""
    module, path = SOURCES[kind]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["go", "mod", "init", "crds"], cwd=folder, check=True, capture_output=True)
        found = json.loads(subprocess.run(["go", "mod", "download", "-json", module], cwd=folder, check=True, capture_output=True).stdout)
    text = (Path(found["Dir"]) / path).read_text()
    crd: dict[str, Any] = next(crd for crd in yaml.safe_load_all(text) if crd and crd["spec"]["names"]["kind"] == kind)
    return crd


def _fetch() -> None:
    for kind in SOURCES:
        spec = definition(kind)["spec"]
        versions = {f"{spec['group']}/{v['name']}": _bare(v["schema"]["openAPIV3Schema"]) for v in spec["versions"] if v["served"]}
        (FOLDER / f"{kind}.json").write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")


def _bare(schema: Any) -> Any:
    """Returns the schema without the parts that no check uses: descriptions, defaults and CEL rules."""
    if not isinstance(schema, dict):
        return [_bare(part) for part in schema] if isinstance(schema, list) else schema
    result = {name: _bare(part) for name, part in schema.items() if name != "properties" and not _LEFT_OUT.fullmatch(name)}
    if "properties" in schema:
        result["properties"] = {name: _bare(part) for name, part in schema["properties"].items()}
    return result


if __name__ == "__main__":
    _fetch()
