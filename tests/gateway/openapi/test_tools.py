"""Known tools accept the OpenAPI document: a linter, and generators of clients in TypeScript and Python. And Swagger UI is the published one."""

import json
import os
import shutil
import sys
from pathlib import Path
from subprocess import run

import pytest

from gateway.docs import vendor
from gateway.openapi.document import document
from tests.gateway.stack import DESCRIPTORS
from tests.support.tools import required

pytestmark = pytest.mark.slow("it installs tools from the package indexes of npm and Python")

LINTER = "@redocly/cli@2.77.0"
TYPESCRIPT = ("openapi-typescript@7.13.0", "typescript@5.9.3")
PYTHON = "openapi-python-client==0.29.1"
WITHIN_SECONDS = 400
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # the generator formats with ruff
    "REDOCLY_TELEMETRY": "off",
    "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true",
}


def _run(folder: Path, *command: str) -> str:
    ended = run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=WITHIN_SECONDS)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the document."""
    (tmp_path / "openapi.json").write_text(json.dumps(document(DESCRIPTORS.read_bytes())), encoding="utf-8")
    return tmp_path


@pytest.fixture
def npm(folder: Path) -> Path:
    """A folder in which npm installs."""
    required("npx", "it is in the Debian package npm")
    (folder / "package.json").write_text("{}", encoding="utf-8")
    return folder


def test_the_linter_finds_nothing(npm: Path) -> None:
    shutil.copy(Path(__file__).with_name("redocly.yaml"), npm)
    output = _run(npm, "npx", "--yes", LINTER, "lint", "openapi.json", "--max-problems", "100")
    assert "warning" not in output.lower().replace("deprecation warning", ""), output


def test_a_typescript_client_is_generated_and_compiles(npm: Path) -> None:
    _run(npm, "npm", "install", "--no-audit", "--no-fund", *TYPESCRIPT)
    _run(npm, "npx", "openapi-typescript", "openapi.json", "--output", "api.ts")
    use = 'import type { paths } from "./api";\ntype Task = paths["/api/v1/tasks"]["post"]["responses"]["201"]["content"]["application/json"];\n'
    typed = "export const title = (task: Task): string => task.title;\nexport const due = (task: Task): string | undefined => task.due_date;\n"
    (npm / "use.ts").write_text(use + typed, encoding="utf-8")
    _run(npm, "npx", "tsc", "--noEmit", "--strict", "--skipLibCheck", "use.ts")


def test_a_python_client_is_generated(folder: Path) -> None:
    uvx = ("uv", "tool", "run", "--from", PYTHON, "openapi-python-client")
    output = _run(folder, *uvx, "generate", "--path", "openapi.json", "--output-path", "client", "--fail-on-warning")
    assert "Warning" not in output
    assert (folder / "client" / "task_manager_client" / "models" / "task.py").exists()


def test_swagger_ui_is_that_of_its_npm_package(npm: Path) -> None:
    version = (vendor.TARGET / "VERSION").read_text().strip().removeprefix("v")
    _run(npm, "npm", "pack", "--silent", f"swagger-ui-dist@{version}")
    (archive,) = npm.glob("*.tgz")
    shutil.unpack_archive(archive, npm)
    for name in ("favicon-32x32.png", "swagger-ui-bundle.js", "swagger-ui.css"):
        assert (npm / "package" / name).read_bytes() == (vendor.TARGET / name).read_bytes(), name
