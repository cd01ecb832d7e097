"""`python -m helm.manifests`: writes `manifests/` from the chart and `manifests/values.yaml`; with `--check` it only tells what has drifted."""

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

from helm.chart import ROOT, read_values, texts

FOLDER: Final = ROOT.parents[1] / "manifests"
# Written by hand; the rest of the folder is rendered, and nothing else may be there.
BY_HAND: Final = frozenset({"README.md", "kustomization.yaml", "namespace.yaml", "values.yaml", "secrets.env.example", ".gitignore", "secrets.env"})
# Only Helm looks at these.
_HELMS_LABELS: Final = re.compile(r"^ +(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", re.MULTILINE)
_HEAD: Final = "# Rendered from helm/task-manager by `make manifests`. Change the chart, or values.yaml beside this file.\n"


def rendered() -> dict[str, str]:
    """The text of each file, by its name: one for each component, and one for what holds for all."""
    parts: dict[str, list[str]] = defaultdict(list)
    for template, text in sorted(texts(read_values(FOLDER / "values.yaml")).items()):
        documents = [document.strip("\n") for document in re.split(r"^---$", text, flags=re.MULTILINE) if document.strip()]
        if template.endswith(".yaml"):
            parts[_file(template)] += documents
    return {file: _HEAD + "---\n" + "\n---\n".join(map(_plain, documents)) + "\n" for file, documents in parts.items() if documents}


def _file(template: str) -> str:
    """`task-manager/charts/gateway/templates/hpa.yaml` goes to `gateway.yaml`; what is the umbrella's own, by the component that it begins with."""
    if found := re.search(r"/charts/([^/]+)/", template):
        return f"{found[1]}.yaml"
    return "gateway.yaml" if Path(template).name.startswith("gateway-") else Path(template).name


def _plain(document: str) -> str:
    lines = _HELMS_LABELS.sub("", document + "\n").splitlines()
    return "\n".join(line.rstrip() for line in lines)


def drift() -> list[str]:
    """One line for each file that is not as it would be rendered."""
    wanted = rendered()
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir() if path.name not in BY_HAND}
    return [f"{name}: {_how(name, wanted, found)}" for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]


def _how(name: str, wanted: dict[str, str], found: dict[str, str]) -> str:
    if name not in found:
        return "is missing"
    return "differs from the chart" if name in wanted else "is not of the chart"


def write() -> None:
    """Makes the folder as it should be."""
    wanted = rendered()
    for path in FOLDER.iterdir():
        if path.name not in BY_HAND | wanted.keys():
            path.unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helm.manifests", description="Renders manifests/ from the chart.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with status 1 if a file has drifted")
    if not parser.parse_args().check:
        write()
        return 0
    if lines := drift():
        sys.stderr.write("manifests/ has drifted from the chart; run `make manifests`:\n  " + "\n  ".join(lines) + "\n")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
