"""The keyring of the desktop as the place of a profile's tokens, if the package keyring is installed and finds one."""

import importlib
from typing import Any, Final

_SERVICE: Final = "task-manager"


class Keyring:
    """A Vault in the keyring. `module` is the package keyring."""

    def __init__(self, module: Any) -> None:
        self._keyring = module
        self._error: type[Exception] = module.errors.KeyringError

    def get(self, profile: str) -> str | None:
        """Returns the text, or None."""
        try:
            text: str | None = self._keyring.get_password(_SERVICE, profile)
        except self._error:
            return None
        return text

    def set(self, profile: str, text: str) -> bool:
        """Stores the text. Returns False if the keyring is locked or absent: the tokens then stay in the profile's file."""
        try:
            self._keyring.set_password(_SERVICE, profile, text)
        except self._error:
            return False
        return True

    def delete(self, profile: str) -> None:
        """Removes the text, if there is one."""
        try:
            self._keyring.delete_password(_SERVICE, profile)
        except self._error:
            return


def find() -> Keyring | None:
    """Returns the keyring, or None if the package is not installed."""
    try:
        return Keyring(importlib.import_module("keyring"))
    except ImportError:
        return None
