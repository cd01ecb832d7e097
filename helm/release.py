"""`python -m helm.release OUTPUT --registry ghcr.io/OWNER/REPOSITORY --runbook URL NAME=sha256:…`: copies the chart, for `helm package`.

The values of the copy name each image by its digest and contain the URL of this version's runbook. NAME is the name of one of our images, or one of
`others()`.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

from helm.chart import ROOT

IMAGES: Final = ("auth-service", "task-service", "gateway")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_DEFAULT: Final = re.compile(r'repository: (?P<repository>\S+)\n(?:.*\n)*? *tag: "(?P<tag>[^"]+)"\n(?:.*\n)*? *digest: ""')
_RUNBOOK: Final = '  runbook: ""\n'
_HEAD: Final = "\n# The images that this version was released with.\n"


def others() -> set[str]:
    """Returns the images that others publish, `REPOSITORY:TAG`, which the values of the components name."""
    return {f"{found['repository']}:{found['tag']}" for file in _components(ROOT) for found in _DEFAULT.finditer(file.read_text(encoding="utf-8"))}


def _components(root: Path) -> list[Path]:
    return sorted(root.glob("charts/*/values.yaml"))


class WrongDigests(ValueError):
    """The digests are not exactly one valid digest for each image."""


def write(output: Path, registry: str, runbook: str, digests: Mapping[str, str]) -> None:
    """Copies the chart to a folder that does not exist yet, and sets its images and the URL of its runbook. Raises WrongDigests."""
    if digests.keys() != (wanted := {*IMAGES, *others()}):
        raise WrongDigests(f"digests of {', '.join(sorted(wanted))} are needed, but these were given: {', '.join(sorted(digests)) or 'none'}")
    if wrong := [f"{name}={digest}" for name, digest in digests.items() if not _DIGEST.fullmatch(digest)]:
        raise WrongDigests(f"not a digest: {', '.join(wrong)}")
    shutil.copytree(ROOT, output)
    values = {name: {"image": {"repository": f"{registry}/{name}", "digest": digests[name]}} for name in IMAGES}
    with (output / "values.yaml").open("a", encoding="utf-8") as file:
        file.write(_HEAD + yaml.safe_dump(values, sort_keys=False))
    for component in _components(output):
        component.write_text(_with_digests(component.read_text(encoding="utf-8"), digests), encoding="utf-8")
    monitoring = output / "charts" / "monitoring" / "values.yaml"
    monitoring.write_text(monitoring.read_text(encoding="utf-8").replace(_RUNBOOK, f"  runbook: {json.dumps(runbook)}\n"), encoding="utf-8")


def _with_digests(text: str, digests: Mapping[str, str]) -> str:
    """Returns the values of a component with the digests of the images that others publish. With a digest, a chart ignores the tag."""
    return _DEFAULT.sub(lambda found: found[0].removesuffix('""') + json.dumps(digests[f"{found['repository']}:{found['tag']}"]), text)


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helm.release", description="Copies the chart and sets its images by digest.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--registry", required=True, help="the registry of the images, ghcr.io/OWNER/REPOSITORY")
    parser.add_argument("--runbook", required=True, help="the URL of this version's docs/runbook.md")
    parser.add_argument("digests", nargs="+", metavar="NAME=DIGEST")
    arguments = parser.parse_args()
    try:
        write(arguments.output, arguments.registry, arguments.runbook, dict(pair.partition("=")[::2] for pair in arguments.digests))
    except WrongDigests as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
