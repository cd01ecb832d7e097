"""The name of the local time zone."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_LINK: Final = Path("/etc/localtime")
_NAME: Final = Path("/etc/timezone")
_FOLDER: Final = "zoneinfo/"


def local_zone(link: Path = _LINK, name: Path = _NAME) -> str:
    """Returns the IANA name of the local time zone, or "" if the system does not tell it, as Windows."""
    return next((name for name in _candidates(link, name) if _exists(name)), "")


def _candidates(link: Path, name: Path) -> Iterator[str]:
    setting = os.environ.get("TZ")
    if setting is not None:
        # An empty one means UTC (POSIX, section 8.3).
        yield _name_in(setting.removeprefix(":")) or "UTC"
        return
    with suppress(OSError):
        yield _name_in(str(link.resolve(strict=True)))
    with suppress(OSError, UnicodeDecodeError):
        yield name.read_text(encoding="utf-8").strip()
    if not link.exists():
        # The C library's default.
        yield "UTC"


def _name_in(path: str) -> str:
    """Returns the name of a zone in the path of its file."""
    return path.rpartition(_FOLDER)[2] if path.startswith("/") else path


def _exists(name: str) -> bool:
    if name == "UTC":
        return True
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
