"""Profiles: who can read them, to which address their tokens go, and where the tokens are if there is a keyring."""

import json
import multiprocessing
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from task_manager_client import InvalidArgument, Tokens
from task_manager_client.keyrings import Keyring
from task_manager_client.profiles import Login, Profile, ProfileError

TOKENS = Tokens("access", "refresh", 123.5)
HERE = Login("http://here", "ada@example.com")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "task-manager"


def _begun(folder: Path, **options: Any) -> Profile:
    profile = Profile(folder=folder, **options)
    profile.begin(HERE)
    profile.save(TOKENS)
    return profile


def test_only_the_user_can_read_a_profile(folder: Path) -> None:
    profile = _begun(folder)
    release = profile.try_lock()
    assert release is not None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir() if path.suffix == ".json"} == {"default.json": "0o600"}
    release()
    assert (profile.load(), profile.login) == (TOKENS, HERE)


def test_a_logout_keeps_the_address_and_forgets_the_tokens(folder: Path) -> None:
    profile = _begun(folder)
    profile.save(None)
    assert (profile.load(), profile.login) == (None, HERE)
    assert "refresh" not in (folder / "default.json").read_text()


def test_tokens_are_for_the_address_that_issued_them(folder: Path) -> None:
    _begun(folder)
    assert Profile(folder=folder, url="http://elsewhere").load() is None
    assert Profile(folder=folder, url=HERE.url).load() == TOKENS


def test_profiles_are_separate(folder: Path) -> None:
    _begun(folder)
    assert Profile("work", folder=folder).load() is None


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "ä"])
def test_a_name_that_is_no_file_name_is_rejected(folder: Path, name: str) -> None:
    with pytest.raises(InvalidArgument):
        Profile(name, folder=folder)


LOGIN = '"url": "http://here", "email": "ada@example.com"'
DAMAGED = [
    "{",
    "[]",
    "\udcff",
    '{"url": "http://here"}',
    '{"url": 1, "email": 2}',
    f'{{{LOGIN}, "tokens": []}}',
    f'{{{LOGIN}, "tokens": {{"access_token": "a", "refresh_token": "r"}}}}',
    f'{{{LOGIN}, "tokens": {{"access_token": "a", "refresh_token": 1, "fresh_until": 2}}}}',
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_has_a_message(folder: Path, content: str) -> None:
    profile = _begun(folder)
    (folder / "default.json").write_text(content, errors="surrogateescape")
    for read in (profile.load, profile.require_login):
        with pytest.raises(ProfileError, match=r"cannot read .*default.json.*log in again"):
            read()
    profile.begin(HERE, TOKENS)
    assert (profile.load(), profile.login) == (TOKENS, HERE)


def test_a_newer_version_may_write_more(folder: Path) -> None:
    profile = _begun(folder)
    data = json.loads((folder / "default.json").read_text())
    (folder / "default.json").write_text(json.dumps({**data, "color": 1, "tokens": {**data["tokens"], "scope": "all"}}))
    assert (profile.load(), profile.login) == (TOKENS, HERE)


def test_a_new_login_waits_for_the_refresh_and_returns_the_tokens_before(folder: Path) -> None:
    profile = _begun(folder)
    release = profile.try_lock()
    assert release is not None
    refreshed = Tokens("refreshed", "refreshed", 200)
    with ThreadPoolExecutor(1) as pool:
        beginning = pool.submit(Profile(folder=folder).begin, Login("http://there", "ada@example.com"), TOKENS)
        with pytest.raises(TimeoutError):
            beginning.result(timeout=0.5)
        profile.save(refreshed)
        release()
        assert beginning.result(timeout=60) == refreshed
    assert (profile.load(), Profile(folder=folder, url="http://there").load()) == (None, TOKENS)


def test_a_folder_that_cannot_be_made_has_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProfileError, match="cannot create"):
        Profile(folder=tmp_path / "file" / "x").begin(HERE)


def _try(folder: Path, queue: Any) -> None:
    queue.put(Profile(folder=folder).try_lock() is not None)


def test_the_lock_holds_against_this_and_other_processes(folder: Path) -> None:
    profile, spawn = _begun(folder), multiprocessing.get_context("spawn")
    release = profile.try_lock()
    assert release is not None
    assert profile.try_lock() is None
    assert Profile(folder=folder).try_lock() is None
    queue = spawn.Queue()
    child = spawn.Process(target=_try, args=(folder, queue))
    child.start()
    assert queue.get(timeout=60) is False
    child.join()
    release()
    again = profile.try_lock()
    assert again is not None
    again()


class _KeyringError(Exception):
    pass


class _Ring:
    """The functions of the package keyring, in memory; with `locked` they fail as those of a locked keyring."""

    errors = SimpleNamespace(KeyringError=_KeyringError)

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def _require_open(self) -> None:
        if self.locked:
            raise _KeyringError

    def get_password(self, service: str, name: str) -> str | None:
        self._require_open()
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, text: str) -> None:
        self._require_open()
        self.kept[service, name] = text

    def delete_password(self, service: str, name: str) -> None:
        self._require_open()
        if self.kept.pop((service, name), None) is None:
            raise _KeyringError


def test_a_keyring_has_the_tokens_instead_of_the_file(folder: Path) -> None:
    ring = _Ring()
    profile = _begun(folder, vault=Keyring(ring))
    assert "tokens" not in json.loads((folder / "default.json").read_text())
    assert profile.load() == TOKENS
    profile.save(None)
    assert (ring.kept, profile.load()) == ({}, None)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_damaged_tokens_in_a_keyring_have_a_message(folder: Path, text: str) -> None:
    ring = _Ring()
    profile = _begun(folder, vault=Keyring(ring))
    ring.kept = dict.fromkeys(ring.kept, text)
    with pytest.raises(ProfileError, match=r"the tokens of the profile default in the keyring: .*log in again"):
        profile.load()
    assert profile.begin(HERE, TOKENS) is None
    assert profile.load() == TOKENS


def test_a_locked_keyring_leaves_the_tokens_in_the_file_until_it_opens(folder: Path) -> None:
    ring = _Ring()
    profile = _begun(folder, vault=Keyring(ring))
    ring.locked = True
    newer = Tokens("newer", "newer", 200.0)
    profile.save(newer)
    assert profile.load() == newer
    ring.locked = False
    assert profile.load() == newer
    profile.save(newer)
    assert "tokens" not in json.loads((folder / "default.json").read_text())
    assert profile.load() == newer
