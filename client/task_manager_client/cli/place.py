"""Which system and which account a command uses: options, the environment (TM_URL, TM_TOKEN, TM_PROFILE) and the profile."""

import os
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import httpx

from task_manager_client.cli.failures import UsageError
from task_manager_client.client import Client
from task_manager_client.profiles import DEFAULT_PROFILE, Profile
from task_manager_client.wire import DEFAULT_URL, USER_AGENT

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_MAX_PORT: Final = 65_535
AGENT: Final = f"tm {USER_AGENT}"


@dataclass(slots=True)
class Place:
    """The profile and the environment of one run of the command."""

    profile_name: str = field(default_factory=lambda: os.environ.get("TM_PROFILE") or DEFAULT_PROFILE)
    url_given: str = field(default_factory=lambda: os.environ.get("TM_URL", ""))
    token: str = field(default_factory=lambda: os.environ.get("TM_TOKEN", ""))

    @property
    def url(self) -> str:
        """The address: TM_URL, or that of the last login, or the default. Raises UsageError."""
        if self.url_given:
            return checked_url(self.url_given)
        login = self.profile().login
        return login.url if login is not None else DEFAULT_URL

    def profile(self, url: str | None = None) -> Profile:
        """Returns the profile, for one address or for any."""
        return Profile.current(self.profile_name, url=url)

    def client(self) -> Client:
        """Returns a client of the current account."""
        if self.token:
            return Client(self.url, access_token=self.token, user_agent=AGENT)
        return Client(self.url, tokens=self.profile(self.url), user_agent=AGENT)


def checked_url(text: str) -> str:
    """Returns an address with its scheme and without a slash at its end. Raises UsageError."""
    text = text.strip().rstrip("/")
    if "://" not in text:
        text = f"{'http' if is_loopback(f'http://{text}') else 'https'}://{text}"
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise UsageError(f"{text!r} is not an address: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host or url.userinfo or not 0 < (url.port or 1) <= _MAX_PORT:
        raise UsageError(f"{text!r} is not an address such as https://tasks.example.com")
    return text


def is_loopback(url: str) -> bool:
    """Returns whether an address is on this machine."""
    try:
        return urlsplit(url).hostname in _LOOPBACK
    except ValueError:
        return False
