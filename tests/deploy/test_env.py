"""`make env` generates the secrets, and `make compose-up` first checks that .env has them."""

import base64
import stat
from pathlib import Path

import pytest

from deploy import env


def test_all_secrets_are_made_privately_and_only_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / ".env"
    assert env.check(file) == 2
    env.make(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert env.check(file) == 0
    first = file.read_text()
    env.make(file)
    assert file.read_text() == first
    values = dict(line.split("=", 1) for line in first.splitlines() if not line.startswith("#"))
    assert set(values) == set(env.SECRETS)
    assert len(set(values.values())) == len(values)
    assert len(base64.b64decode(values["KEY_ENCRYPTION_KEY"])) == 32
    printed = capsys.readouterr()
    assert not [value for value in values.values() if value in printed.out + printed.err]


def test_what_is_there_stays_and_what_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / ".env"
    file.write_text("LOG_LEVEL=DEBUG\nREDIS_PASSWORD=mine # a comment\nPOSTGRES_PASSWORD=   # nothing\nSERVICE_TOKEN=")
    assert env.check(file) == 2
    said = capsys.readouterr().err
    assert "POSTGRES_PASSWORD" in said
    assert "make env" in said
    assert "REDIS_PASSWORD" not in said
    env.make(file)
    lines = file.read_text().splitlines()
    assert lines[:2] == ["LOG_LEVEL=DEBUG", "REDIS_PASSWORD=mine # a comment"]
    assert len([line for line in lines if line.startswith("POSTGRES_PASSWORD=")]) == 1
    assert env.check(file) == 0


def test_the_example_can_be_copied_and_completed(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text((Path(__file__).resolve().parents[2] / ".env.example").read_text())
    assert env.check(file) == 2
    env.make(file)
    assert env.check(file) == 0
