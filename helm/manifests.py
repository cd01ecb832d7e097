"""`python -m helm.manifests`: renders `manifests/` from the chart and `manifests/values.yaml`. With `--check` it only lists files that differ."""

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

from helm.chart import ROOT, read_values, texts

FOLDER: Final = ROOT.parents[1] / "manifests"
# Files written by hand. All other files of the folder are rendered; drift() reports any additional file.
BY_HAND: Final = frozenset({"README.md", "kustomization.yaml", "namespace.yaml", "values.yaml", "secrets.env.example", ".gitignore", "secrets.env"})
# Labels that only Helm reads.
_HELMS_LABELS: Final = re.compile(r"^ +(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", re.MULTILINE)
_HEAD: Final = "# Rendered from helm/task-manager by `make manifests`. Change the chart, or values.yaml beside this file.\n"


def rendered() -> dict[str, str]:
    """Returns the text of each manifest by file name: one file per component, and one per template of the umbrella chart."""
    parts: dict[str, list[str]] = defaultdict(list)
    for template, text in sorted(texts(read_values(FOLDER / "values.yaml")).items()):
        documents = [document.strip("\n") for document in re.split(r"^---$", text, flags=re.MULTILINE) if document.strip()]
        if template.endswith(".yaml"):
            parts[_file(template)] += documents
    return {file: _HEAD + "---\n" + "\n---\n".join(map(_plain, documents)) + "\n" for file, documents in parts.items() if documents}


def _file(template: str) -> str:
    """Maps `task-manager/charts/gateway/templates/hpa.yaml` and the umbrella's `gateway-deployment.yaml` to `gateway.yaml`. Others keep the name."""
    if found := re.search(r"/charts/([^/]+)/", template):
        return f"{found[1]}.yaml"
    return Path(template).name.replace("-deployment.yaml", ".yaml")


def _plain(document: str) -> str:
    lines = _HELMS_LABELS.sub("", document + "\n").splitlines()
    return "\n".join(line.rstrip() for line in lines)


def drift() -> list[str]:
    """Returns one line for each file that is missing, additional, or different from the rendered text."""
    wanted = rendered()
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir() if path.name not in BY_HAND}
    return [f"{name}: {_how(name, wanted, found)}" for name in sorted(wanted.keys() | found.keys()) if wanted.get(name) != found.get(name)]


def _how(name: str, wanted: dict[str, str], found: dict[str, str]) -> str:
    if name not in found:
        return "is missing"
    return "differs from the chart" if name in wanted else "is not rendered from the chart"


def write() -> None:
    """Writes the rendered files and deletes all other files except those written by hand."""
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
