"""The rules for the workflows. `faults` names each violation, and each file, target or module that does not exist."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / ".github" / "workflows"
Workflow = dict[str, Any]

_PINNED: Final = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
_USES: Final = re.compile(r"uses: +([^\s#]+)(.*)")
_VERSION: Final = re.compile(r" # v\d+\.\d+\.\d+")
# A file of the repository: one of its folders, and a path below it. A path followed by @ is an action.
_PATH: Final = re.compile(r"(?<![\w/$.{-])((?:\.ci|\.github|bench|deploy|docs|gateway|helm|proto|tests)/[\w./-]++)(?!@)")
_MAKE: Final = re.compile(r"\bmake((?: +[\w./=-]+)+)")
_MODULE: Final = re.compile(r"python -m ((?:helm|tests|bench|gateway)[\w.]*)")
# A value under a name that marks it as secret, which does not come from GitHub's own store.
_SECRET: Final = re.compile(
    r"(?im)^\s*-?\s*[\w-]*(?:password|passwd|token|secret|api[_-]?key|private[_-]?key)[\w-]*\s*[:=]\s*(?!\s*$)(?!\$\{\{)(?!write\b|read\b)\S+"
)
_KEY_MATERIAL: Final = re.compile(r"BEGIN [A-Z ]*PRIVATE KEY|\bgh[pousr]_\w{20,}|\bAKIA[0-9A-Z]{16}\b")
# The write permissions that a workflow may request: the release needs packages, and an identity to sign with.
WRITES: Final[Mapping[str, set[str]]] = {"release": {"packages", "id-token"}}


def texts() -> dict[str, str]:
    """Returns the text of each workflow, by name."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yml"))}


def read(text: str) -> Workflow:
    """Parses a workflow. YAML 1.1 reads the key `on` as true; this function restores it."""
    found: Workflow = yaml.safe_load(text)
    return {("on" if key is True else key): value for key, value in found.items()}


def faults(name: str, text: str) -> list[str]:
    """Returns one line per violation."""
    workflow = read(text)
    checks = (_pins(text), _permissions(name, workflow), _bounds(workflow), _caches(workflow), _named(text), _secrets(text), _shell(workflow))
    return [f"{name}: {line}" for check in checks for line in check]


def steps(workflow: Workflow) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each step with the name of its job."""
    for job, content in workflow["jobs"].items():
        yield from ((job, step) for step in content.get("steps", []))


def commands(workflow: Workflow) -> list[str]:
    """Returns the commands of the steps."""
    return [step["run"] for _, step in steps(workflow) if "run" in step]


def pythons(workflow: Workflow) -> list[str]:
    """Returns the Python versions that the tests run on."""
    found: list[str] = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    return found


def _pins(text: str) -> Iterator[str]:
    for action, comment in _USES.findall(text):
        if action.startswith("./"):
            if not (ROOT / action).is_file():
                yield f"{action} is not there"
        elif not _PINNED.fullmatch(action):
            yield f"{action} is not pinned to a commit"
        elif not _VERSION.fullmatch(comment):
            yield f"{action} does not say which version it is"
    pins = {action.partition("@")[0]: action for action, _ in _USES.findall(text)}
    yield from (f"{action} is there in two versions" for action, _ in _USES.findall(text) if pins[action.partition("@")[0]] != action)


def _permissions(name: str, workflow: Workflow) -> Iterator[str]:
    if workflow.get("permissions") != {}:
        yield "does not begin without permissions"
    for job, content in workflow["jobs"].items():
        asked = content.get("permissions")
        if not isinstance(asked, dict):
            yield f"{job} has no permissions of its own"
            continue
        writes = {scope for scope, level in asked.items() if level != "read"}
        yield from (f"{job} may write {scope}" for scope in sorted(writes - WRITES.get(name, set())))
    for job, step in steps(workflow):
        if step.get("uses", "").startswith("actions/checkout@") and step.get("with", {}).get("persist-credentials") is not False:
            yield f"{job} leaves its credentials in the checkout"


def _bounds(workflow: Workflow) -> Iterator[str]:
    if "group" not in workflow.get("concurrency", {}):
        yield "has no concurrency group"
    for job, content in workflow["jobs"].items():
        if "uses" not in content and "timeout-minutes" not in content:
            yield f"{job} has no timeout"


def _caches(workflow: Workflow) -> Iterator[str]:
    """Checks that each cache of tools is keyed by the full Python version, because its environments need exactly the Python that created them."""
    pythons = {(job, step.get("id")) for job, step in steps(workflow) if step.get("uses", "").startswith("actions/setup-python@")}
    for job, step in steps(workflow):
        if step.get("uses", "").startswith("actions/cache@"):
            named = re.search(r"\$\{\{ steps\.([\w-]+)\.outputs\.python-version }}", step["with"]["key"])
            if named is None or (job, named[1]) not in pythons:
                yield f"{job} keeps {step['with']['path']} for other Pythons than the one that it was made with"


def _named(text: str) -> Iterator[str]:
    """Yields files, targets and modules that the text names, also in comments, but that do not exist."""
    phony = set(re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    yield from (f"there is no {path}" for path in _PATH.findall(text) if not _there(path.rstrip(".")))
    for arguments in _MAKE.findall(text):
        yield from (f"there is no target {target}" for target in arguments.split() if "=" not in target and target not in phony)
    yield from (f"there is no module {module}" for module in _MODULE.findall(text) if not _there(module.replace(".", "/") + ".py"))


def _there(path: str) -> bool:
    return (ROOT / path).exists()


def _secrets(text: str) -> Iterator[str]:
    yield from (f"a secret in plain: {found.strip()}" for found in _SECRET.findall(text))
    yield from ("key material" for _ in _KEY_MATERIAL.findall(text))


def _shell(workflow: Workflow) -> Iterator[str]:
    """Checks that commands run in bash with pipefail, and contain no expression whose value an outsider controls."""
    if workflow.get("defaults", {}).get("run", {}).get("shell") != "bash":
        yield "does not run in bash, which alone fails in the middle of a pipe"
    for command in commands(workflow):
        yield from (
            f"pastes {found} into a command: give it as a variable"
            for found in re.findall(r"\$\{\{ *((?:inputs|github\.(?:event|head_ref))[^}]*)\}\}", command)
        )
        if len(command.splitlines()) > 8:
            yield "has a command of more than 8 lines: make it a script, which shellcheck and a person can run"
