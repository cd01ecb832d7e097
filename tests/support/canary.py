"""Finds leaked secrets: remembers the secrets that the tests send and receive, and searches for them in everything that the system writes.

The search looks for tokens and keys in pieces of 16 characters, so that it also finds truncated ones, and for passwords as a whole. A finding names
the kind of the secret and the place, but never quotes the secret.
"""

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import hypothesis
import redis.asyncio

from auth_service.keys.domain import StoredKey
from auth_service.keys.seal import KeySeal
from auth_service.passwords.leaked import LeakedPasswords
from devstack.config import HOST
from devstack.data_dir import DataDir
from devstack.stack import Stack
from servicekit.access.seal import parse_key_encryption_keys

PIECE = 16
WORD = re.compile(rf"[A-Za-z0-9_-]{{{PIECE},}}")
# A word with a non-word character on both sides, so that it stays a complete word when the text is quoted inside another text.
INNER_WORD = re.compile(r"(?<=\W)\w+(?=\W)")
KEY_BYTES = 32
# A run of one character, as it is or escaped in JSON. Large values of tests consist of such runs, and no secret contains one.
RUN = re.compile(r"(\\u[0-9a-f]{4}|.)\1{63,}", re.DOTALL)
# Shorter passwords, or passwords with fewer different characters, also occur in harmless texts.
MIN_PASSWORD_CHARACTERS, MIN_DIFFERENT_CHARACTERS = 12, 6

PASSWORD_FIELDS = ("password", "current_password", "new_password")
TOKEN_PATHS = ("/api/v1/auth/login", "/api/v1/auth/refresh", "/api/v1/auth/exchange")
API_TOKENS_PATH = "/api/v1/auth/tokens"
WEBHOOKS_PATH = "/api/v1/webhooks"

COLUMNS = """
    SELECT n.nspname AS schema, c.relname AS relation, a.attname AS name, a.atttypid = 'bytea'::regtype AS is_bytes
      FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname IN ('auth', 'task') AND c.relkind IN ('r', 'm') AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY 1, 2, a.attnum
"""
SIGNING_KEYS = "SELECT id, public_key, sealed_key, active_from FROM auth.signing_keys"


class Secrets:
    """The secrets that must not appear anywhere, and the error answers to search."""

    def __init__(self) -> None:
        self._pieces: dict[str, str] = {}
        # Each phrase with the words that a text must contain before it is searched: searching tens of megabytes for every phrase would take too long.
        self._phrases: dict[str, tuple[str, frozenset[str]]] = {}
        self._raw: dict[bytes, str] = {}
        self._leaked = LeakedPasswords()
        self.errors: dict[str, list[str]] = {}

    def add(self, kind: str, text: str) -> None:
        """Adds a secret of any form."""
        if WORD.fullmatch(text):
            starts = {*range(0, len(text) - PIECE + 1, PIECE), len(text) - PIECE}
            self._pieces.update((text[start : start + PIECE], kind) for start in starts)
        else:
            self._add_phrase(kind, text)

    def add_access_token(self, token: str) -> None:
        """Adds a JWT without its header, which is the same for all tokens and no secret."""
        for part in token.split(".")[1:]:
            self.add("access token", part)

    def add_key(self, kind: str, key: bytes) -> None:
        """Adds a key in its raw, hexadecimal and base64 forms."""
        self._raw[key] = kind
        for text in (key.hex(), key.hex().upper(), base64.b64encode(key).decode(), base64.urlsafe_b64encode(key).decode().rstrip("=")):
            self.add(kind, text)

    def add_webhook_secret(self, secret: str) -> None:
        """Adds the secret of a webhook, as its owner gets it and as the key that it is."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        self.add_key("webhook secret", key)
        # The base64 of a random key mostly has signs that end a word, so that it is not searched in pieces.
        for part in re.findall(WORD, base64.b64encode(key).decode()):
            self.add("webhook secret", part)

    def add_password(self, password: str) -> None:
        """Adds a password, unless it also occurs in harmless texts: a short, simple or leaked one, such as `administrator`."""
        if len(password) >= MIN_PASSWORD_CHARACTERS and len(set(password)) >= MIN_DIFFERENT_CHARACTERS:
            # JSON can contain half of a surrogate pair, but no system can write it as UTF-8.
            with contextlib.suppress(UnicodeEncodeError):
                if password not in self._leaked:
                    self._add_phrase("password", password)

    def learn_files(self, directory: Path) -> Mapping[str, str]:
        """Adds a stack's own secrets from the files of a directory. Returns the files' texts by name."""
        files = {path.name: path.read_text() for path in directory.iterdir()}
        for kind, text in files.items():
            self.add(kind, text)
            with contextlib.suppress(binascii.Error):
                key = base64.b64decode(text, validate=True)
                if len(key) == KEY_BYTES:
                    self.add_key(kind, key)
        return files

    async def learn(self, stack: Stack) -> None:
        """Adds the stack's own secrets: its secret files and its private signing keys."""
        files = self.learn_files(Path(stack.state.data_dir) / "secrets")
        seal = KeySeal(parse_key_encryption_keys(files["key_encryption_key"]))
        connection = await asyncpg.connect(stack.state.database_url)
        try:
            for row in await connection.fetch(SIGNING_KEYS):
                self.add_key("private signing key", seal.open(StoredKey(*row)).private_bytes_raw())
        finally:
            await connection.close()

    async def listen(self, response: httpx.Response) -> None:
        """Remembers the passwords of requests, the tokens of answers, and the errors."""
        path = response.request.url.path
        # Not from Hypothesis tests: arbitrary input includes words of the product's code, which do occur in logs.
        if path.startswith(("/api/v1/auth", "/api/v1/users")) and not hypothesis.currently_in_test_context():
            for password in _passwords(response):
                self.add_password(password)
        if response.is_error:
            await response.aread()
            # Only the first parts of the path: the rest can contain a secret.
            place = f"error {response.status_code} of {response.request.method} {'/'.join(path.split('/')[:4])}"
            self.errors.setdefault(place, []).append(response.text)
        elif path in TOKEN_PATHS and response.status_code == httpx.codes.OK:
            await response.aread()
            self.add_access_token(response.json()["access_token"])
            if "refresh_token" in response.json():
                self.add("refresh token", response.json()["refresh_token"])
        elif path == API_TOKENS_PATH and response.status_code == httpx.codes.CREATED:
            await response.aread()
            self.add("API token", response.json()["token"])
        elif path.startswith(WEBHOOKS_PATH) and response.request.method == "POST" and response.is_success:
            await response.aread()
            if "secret" in (said := response.json()):
                self.add_webhook_secret(said["secret"])

    def found_in(self, text: str) -> dict[str, int]:
        """Returns the kinds of secrets in a text, each with the offset of one occurrence."""
        words = set(INNER_WORD.findall(f" {text} "))
        found = {kind: text.index(phrase) for phrase, (kind, needed) in self._phrases.items() if needed <= words and phrase in text}
        for word in set(WORD.findall(text)):
            for start in range(len(word) - PIECE + 1):
                if (kind := self._pieces.get(word[start : start + PIECE])) is not None:
                    found[kind] = text.index(word)
        return found

    def found_in_bytes(self, values: Sequence[bytes]) -> set[str]:
        """Returns the kinds of secrets in binary values, as text or as raw bytes."""
        # Encoded to base64, because a token could be stored as the random bytes that it encodes.
        encoded = "\n".join(base64.urlsafe_b64encode(value).decode() for value in values)
        return self.written_in(values) | set(self.found_in(encoded))

    def written_in(self, values: Sequence[bytes]) -> set[str]:
        """Returns the kinds of secrets that occur in binary values as text, and of the keys that occur as raw bytes."""
        data = b"\n".join(values)
        return set(self.found_in(data.decode(errors="replace"))) | {kind for key, kind in self._raw.items() if key in data}

    def _add_phrase(self, kind: str, text: str) -> None:
        self._phrases.update((form, (kind, frozenset(INNER_WORD.findall(form)))) for form in _written(text))


def overheard(send: Callable[..., Awaitable[httpx.Response]], secrets: Secrets) -> Callable[..., Awaitable[httpx.Response]]:
    """Wraps httpx.AsyncClient.send: `secrets` listens to every answer of a stack on this machine."""

    async def sending(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        response = await send(client, request, **options)
        if request.url.host in {HOST, "localhost"}:
            await secrets.listen(response)
        return response

    return sending


def searched(close: Callable[[DataDir], None], secrets: Secrets) -> Callable[[DataDir], None]:
    """Wraps DataDir.close: it fails if a log contains a secret. All processes have ended and written their logs by then."""

    def closing(directory: DataDir) -> None:
        secrets.learn_files(directory.secrets)
        findings = in_logs(secrets, directory.logs)
        close(directory)
        _require_none(findings)

    return closing


async def check(stack: Stack, secrets: Secrets) -> None:
    """Fails if a metric, an error, a column or Redis contains a secret. Call it at the end of the tests, while the system still runs."""
    await secrets.learn(stack)
    ports = {name: process.ops_port for name, process in stack.state.processes.items() if process.ops_port and process.pid}
    findings = [
        *await in_metrics(secrets, {name: f"http://{HOST}:{port}/metrics" for name, port in ports.items()}),
        *in_errors(secrets),
        *await in_database(secrets, stack.state.database_url),
        *await in_redis(secrets, stack.state.redis_url),
    ]
    _require_none(findings)


def in_logs(secrets: Secrets, directory: Path) -> list[str]:
    """Returns the findings in all files below a directory."""
    findings = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        text = path.read_text(errors="replace")
        findings += [f"{kind} in {path.name}, line {text.count(chr(10), 0, at) + 1}" for kind, at in secrets.found_in(text).items()]
    return findings


async def in_metrics(secrets: Secrets, urls: Mapping[str, str]) -> list[str]:
    """Returns the findings in the answers of URLs, which are given by process name."""
    async with httpx.AsyncClient(timeout=5) as client:
        answers = {name: (await client.get(url)).raise_for_status().text for name, url in urls.items()}
    return [f"{kind} in the metrics of {name}" for name, text in answers.items() for kind in secrets.found_in(text)]


def in_errors(secrets: Secrets) -> list[str]:
    """Returns the findings in all error answers."""
    return [f"{kind} in {place}" for place, texts in secrets.errors.items() for kind in secrets.found_in("\n".join(texts))]


async def in_database(secrets: Secrets, url: str) -> list[str]:
    """Returns the findings in all columns of all tables."""
    findings = []
    connection = await asyncpg.connect(url)
    try:
        for schema, relation, name, is_bytes in await connection.fetch(COLUMNS):
            column = f'"{name}"' if is_bytes else f'"{name}"::text'
            rows = await connection.fetch(f'SELECT DISTINCT {column} FROM "{schema}"."{relation}" WHERE "{name}" IS NOT NULL')
            values = [row[0] for row in rows]
            kinds = secrets.found_in_bytes(values) if is_bytes else set(secrets.found_in(RUN.sub(r"\1", "\n".join(values))))
            findings += [f"{kind} in {schema}.{relation}.{name}" for kind in sorted(kinds)]
    finally:
        await connection.close()
    return findings


async def in_redis(secrets: Secrets, url: str) -> list[str]:
    """Returns the findings in all keys and values of Redis."""
    async with redis.asyncio.Redis.from_url(url) as client:
        keys = [key async for key in client.scan_iter(count=1000)]
        kept = [value for value in await client.mget(keys) if value is not None] if keys else []
    # Without the base64 form: an access token contains the user's id, and so do the Redis keys.
    return [f"{kind} in Redis' {name}" for name, data in (("keys", keys), ("values", kept)) for kind in sorted(secrets.written_in(data))]


def _require_none(findings: Sequence[str]) -> None:
    assert not findings, f"secrets are in the open: {'; '.join(findings)}"


def _written(text: str) -> set[str]:
    """Returns the forms in which another text may contain a text: unchanged, as JSON (ASCII and UTF-8), as a Python string, in a URL."""
    return {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1], quote(text, safe="")}


def _passwords(response: httpx.Response) -> list[str]:
    """Returns the passwords in an answer's request, without those that other fields contain and rejected new ones, which may be the email."""
    try:
        body = json.loads(response.request.content)
    except (ValueError, RecursionError, httpx.RequestNotRead):
        return []
    if not isinstance(body, dict):
        return []
    told = "\n".join(value for name, value in body.items() if name not in PASSWORD_FIELDS and isinstance(value, str)).casefold()
    fields = PASSWORD_FIELDS if response.is_success else PASSWORD_FIELDS[:-1]
    return [body[name] for name in fields if isinstance(body.get(name), str) and body[name].casefold() not in told]
