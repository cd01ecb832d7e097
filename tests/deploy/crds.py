"""The kinds that Kubernetes itself does not have: their schemas, from the CRDs in the Go modules of their projects.

`python -m tests.deploy.crds` writes `crds/*.json` anew; it needs `go`. The rules in CEL that some have are not among what is checked.
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
# Where a kind's CRD is: module and version, and the file in it.
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
    """What is wrong with an object of one of these kinds."""
    schema = _schemas(found["kind"]).get(found["apiVersion"])
    if schema is None:
        return [f"there is no {found['kind']} in {found['apiVersion']}"]
    # What every object has is not in every CRD.
    own = {name: part for name, part in found.items() if name not in _EVERY}
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(own)]


@cache
def _schemas(kind: str) -> dict[str, Any]:
    """Of a kind, the strict schema of each version."""
    schemas: dict[str, Any] = json.loads((FOLDER / f"{kind}.json").read_text())
    return {version: _strict(schema) | {"required": ["spec"]} for version, schema in schemas.items()}


def _strict(schema: Any) -> Any:
    """The schema, which lets no unknown field pass where it says which there are. An API server drops those without a word."""
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
    """The CRD of a kind, whole, from its project's module; that needs `go`."""
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
    """Without what no check needs: prose, defaults, and rules in CEL."""
    if not isinstance(schema, dict):
        return [_bare(part) for part in schema] if isinstance(schema, list) else schema
    result = {name: _bare(part) for name, part in schema.items() if name != "properties" and not _LEFT_OUT.fullmatch(name)}
    if "properties" in schema:
        result["properties"] = {name: _bare(part) for name, part in schema["properties"].items()}
    return result


if __name__ == "__main__":
    _fetch()
