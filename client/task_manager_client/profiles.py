"""Profiles: the address, the account and the tokens of a login, in files of the user's configuration folder that only the user can read."""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import filelock
import platformdirs

from task_manager_client import keyrings
from task_manager_client.errors import InvalidArgument, NotLoggedIn, TaskManagerError
from task_manager_client.tokens import LOCK_SECONDS, Release, Tokens

APPLICATION: Final = "task-manager"
DEFAULT_PROFILE: Final = "default"
# It becomes the name of a file.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class ProfileError(TaskManagerError):
    """A profile's file cannot be read or written."""


class Vault(Protocol):
    """Keeps a profile's tokens as text elsewhere than in its file: see `keyrings`."""

    def get(self, profile: str) -> str | None:
        """Returns the text, or None."""

    def set(self, profile: str, text: str) -> bool:
        """Stores the text. Returns False if it cannot."""

    def delete(self, profile: str) -> None:
        """Removes the text."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where and as whom a profile logged in."""

    url: str
    email: str


class Profile:
    """A profile. It is the TokenStore of the clients that use it, in any number of processes.

    Tokens are sent only to the address that issued them: with another `url` the profile is not logged in.
    """

    def __init__(self, name: str = DEFAULT_PROFILE, *, url: str | None = None, folder: Path | None = None, vault: Vault | None = None) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"a profile's name has 1 to 64 letters, digits, - and _, not {name!r}")
        self.name = name
        self._folder = folder or platformdirs.user_config_path(APPLICATION)
        self._path = self._folder / f"{name}.json"
        self._vault = vault
        self._url = url

    @property
    def login(self) -> Login | None:
        """The last login, also after a logout; None before the first."""
        data = self._read()
        return Login(data["url"], data["email"]) if "url" in data else None

    def require_login(self) -> Login:
        """Returns the last login. Raises NotLoggedIn if there is none."""
        if (login := self.login) is None:
            raise NotLoggedIn(f"the profile {self.name} is not logged in")
        return login

    def begin(self, login: Login, tokens: Tokens | None = None) -> Tokens | None:
        """Replaces the login: where and as whom, and its tokens. It waits for a refresh under way, which would otherwise replace the new tokens.

        Returns the tokens of the login before.
        """
        try:
            release = self._lock(LOCK_SECONDS)
        except filelock.Timeout as error:
            raise ProfileError(f"another process has held the lock on the profile {self.name} for too long") from error
        try:
            old = None
            # Tokens that cannot be read are replaced, too.
            with suppress(ProfileError):
                old = self.load()
            self._url = login.url
            # First the address and then the tokens: no other process may send the new tokens to the old address.
            self._forget()
            self._write({"url": login.url, "email": login.email})
            if tokens is not None:
                self.save(tokens)
        finally:
            release()
        return old

    def load(self) -> Tokens | None:
        """Returns the tokens, or None after a logout."""
        data = self._read()
        if self._url is not None and data.get("url") != self._url:
            return None
        # Tokens in the file are newer than those in the vault: `save` writes them there only if the vault fails.
        tokens = data.get("tokens")
        if tokens is None and self._vault is not None and (text := self._vault.get(self.name)) is not None:
            try:
                return _tokens_of(json.loads(text))
            except ValueError as error:
                raise ProfileError(f"cannot read the tokens of the profile {self.name} in the keyring: {error}; log in again") from error
        return None if tokens is None else _tokens_of(tokens)

    def save(self, tokens: Tokens | None) -> None:
        """Replaces the tokens."""
        data = {name: value for name, value in self._read().items() if name != "tokens"}
        if tokens is None:
            self._forget()
        else:
            values = {"access_token": tokens.access_token, "refresh_token": tokens.refresh_token, "fresh_until": tokens.fresh_until}
            if self._vault is None or not self._vault.set(self.name, json.dumps(values)):
                data["tokens"] = values
        self._write(data)

    def try_lock(self) -> Release | None:
        """Locks the profile, unless another thread or process has locked it. The system unlocks it if the process ends."""
        try:
            return self._lock(0)
        except filelock.Timeout:
            return None

    def _lock(self, timeout: float) -> Release:
        """Locks the profile. Raises filelock.Timeout if that takes more than `timeout` seconds."""
        self._make_folder()
        lock = filelock.FileLock(self._folder / f"{self.name}.lock", timeout=timeout)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise
        except OSError as error:
            raise ProfileError(f"cannot lock {lock.lock_file}: {error.strerror}") from error
        return lock.release

    def _forget(self) -> None:
        if self._vault is not None:
            self._vault.delete(self.name)

    def _read(self) -> Mapping[str, Any]:
        try:
            return _checked(json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ProfileError(f"cannot read {self._path}: {error}; remove the file and log in again") from error

    def _write(self, data: Mapping[str, Any]) -> None:
        """Replaces the file in one step, so that no reader finds half of it. mkstemp creates files with mode 0600."""
        self._make_folder()
        try:
            handle, name = tempfile.mkstemp(prefix=f".{self.name}.", dir=self._folder)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(data, file, indent=2)
                Path(name).replace(self._path)
            except BaseException:
                with suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            raise ProfileError(f"cannot write {self._path}: {error.strerror}") from error

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ProfileError(f"cannot create {self._folder}: {error.strerror}") from error

    @classmethod
    def current(cls, name: str | None = None, *, url: str | None = None) -> Self:
        """Returns a profile of the user's configuration folder: `name`, or TM_PROFILE, or the default one. It uses the keyring if there is one."""
        return cls(name or os.environ.get("TM_PROFILE") or DEFAULT_PROFILE, url=url, vault=keyrings.find())


def _checked(data: Any) -> Mapping[str, Any]:
    """Returns the content of a profile's file. Raises ValueError if it is none. A profile without a login has neither url nor email."""
    if not isinstance(data, dict) or [type(data[name]) for name in ("url", "email") if name in data] not in ([], [str, str]):
        raise ValueError("it has no url and email")
    if "tokens" in data:
        _tokens_of(data["tokens"])
    return data


def _tokens_of(values: Any) -> Tokens:
    """Returns the tokens of their JSON. Raises ValueError."""
    match values:
        case {"access_token": str(access_token), "refresh_token": str(refresh_token), "fresh_until": float() | int() as fresh_until}:
            return Tokens(access_token, refresh_token, fresh_until)
        case _:
            raise ValueError("its tokens are not complete")
