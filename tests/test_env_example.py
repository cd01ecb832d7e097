"""`.env.example` lists every setting of every program with the code's default, every variable of docker-compose.yml, and nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from auth_service.settings import Settings as AuthSettings
from gateway.settings import GatewaySettings
from task_service.settings import Settings as TaskSettings
from task_service.settings import WorkerSettings
from tests.deploy import compose

ROOT = Path(__file__).resolve().parent.parent
# The file gives no default for settings whose defaults differ between programs, or are made up for development.
WITHOUT_DEFAULT = {"GRPC_PORT", "OPS_PORT", "OTEL_SERVICE_NAME", "PAGE_TOKEN_KEY"}
OF_THE_WORKER = {"DATABASE_POOL_MAX_SIZE"}


def _example() -> dict[str, str]:
    """Reads the file as `docker --env-file` does: everything after the first `=` is the value."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _as_compose(text: str) -> str:
    """Returns the value that compose reads: it ends before ` #`, without quotes and surrounding blanks. After `=` alone, `# …` is the value."""
    return re.sub(r"(?<=\S)\s+#.*", "", text).strip().strip("'\"")


def test_docker_and_compose_read_the_same() -> None:
    for name, text in _example().items():
        assert re.fullmatch(r"[A-Z_]+", name)
        assert text == _as_compose(text), name
        assert "#" not in text, name


def test_copied_as_it_is_it_lacks_only_what_is_required() -> None:
    environment = {name: value for name, value in _example().items() if value}
    # LOG_LEVEL is that of the services; the default of the gateway differs.
    assert GatewaySettings.from_environment(environment | {"LOG_LEVEL": "warning"}) == GatewaySettings()
    for program in (AuthSettings, TaskSettings):
        given = {name: environment[name.upper()] for name in program.model_fields if name.upper() in environment}
        # What is required has no value here; in production a missing secret is an error of its own.
        with pytest.raises(ValidationError) as raised:
            program(**given)
        wrong = {str(error["loc"][0]).upper() for error in raised.value.errors() if error["loc"]}
        assert wrong
        assert all(_example()[name] == "" for name in wrong)


def test_every_setting_is_there_and_no_other() -> None:
    settings = {name.upper() for program in (AuthSettings, TaskSettings, WorkerSettings, GatewaySettings) for name in program.model_fields}
    assert set(_example()) == settings | compose.required() | set(compose.defaults())


@pytest.mark.parametrize("program", [AuthSettings, TaskSettings, WorkerSettings, GatewaySettings])
def test_the_defaults_are_the_codes(program: type[BaseModel]) -> None:
    example = _example()
    for name, field in program.model_fields.items():
        if name.upper() in WITHOUT_DEFAULT or (program is GatewaySettings and name == "log_level"):
            continue
        if program is WorkerSettings and name.upper() in OF_THE_WORKER:
            continue
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        assert _same(default, example[name.upper()]), name


def _same(default: Any, text: str) -> bool:
    if isinstance(default, bool):
        return text == str(default).lower()
    if isinstance(default, int | float):
        return float(text) == default
    if isinstance(default, tuple):
        return text == ",".join(map(_address, default))
    return text == ("" if default is None else _address(default))


def _address(value: Any) -> str:
    return f"{value.host}:{value.port}" if hasattr(value, "port") else str(value)
