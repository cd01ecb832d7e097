"""The lines of iCalendar (RFC 5545, section 3.1): from text to components with properties, and back.

It knows what every property has in common. `ics` knows what the properties mean.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from task_manager_client.transfer.report import UnreadableFile

# In bytes, without the end of the line.
_LINE_BYTES: Final = 75
_PARAMETER: Final = re.compile(r';([A-Za-z0-9-]+)=((?:"[^"]*"|[^";:,]*)(?:,(?:"[^"]*"|[^";:,]*))*)')
_NAME: Final = re.compile(r"[A-Za-z0-9-]+")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_SEPARATOR: Final = re.compile(r"(?<!\\)((?:\\\\)*),")


@dataclass(frozen=True, slots=True)
class Property:
    """A property: its parameters by their names in capitals, and its value as it is written."""

    value: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The value as text (section 3.3.11)."""
        return unescaped(self.value)

    @property
    def texts(self) -> list[str]:
        """The values of a list of texts."""
        parts = _SEPARATOR.sub("\\1\0", self.value).split("\0")
        return [unescaped(part) for part in parts]


@dataclass(slots=True)
class Component:
    """A component, such as VTODO: its properties by their names in capitals, and the components in it. `line` is the number of its first line."""

    name: str
    line: int
    properties: dict[str, list[Property]] = field(default_factory=dict)
    components: list["Component"] = field(default_factory=list)

    def first(self, name: str) -> Property | None:
        """Returns the first property of this name, or None."""
        found = self.properties.get(name)
        return found[0] if found else None


def parse(text: str) -> list[Component]:
    """Returns the components that are in no other one. Raises UnreadableFile."""
    root = Component("", 0)
    open_components = [root]
    for number, line in _unfolded(text):
        name, found = _property(line, number)
        if name == "BEGIN":
            component = Component(found.value.strip().upper(), number)
            open_components[-1].components.append(component)
            open_components.append(component)
        elif name == "END":
            if open_components.pop().name != found.value.strip().upper() or not open_components:
                raise UnreadableFile(f"line {number} ends another component than the one that is open")
        elif len(open_components) == 1:
            raise UnreadableFile(f"line {number} is in no component: an iCalendar file begins with BEGIN:VCALENDAR")
        else:
            open_components[-1].properties.setdefault(name, []).append(found)
    if len(open_components) > 1:
        raise UnreadableFile(f"the component {open_components[-1].name} of line {open_components[-1].line} does not end: the file is not complete")
    return root.components


def written(name: str, value: str, **parameters: str) -> bytes:
    """Returns the lines of a property. `value` is written as it is: escape a text before."""
    given = "".join(f";{key}={_quoted(each)}" for key, each in parameters.items())
    line = f"{name}{given}:{value}".encode()
    if len(line) <= _LINE_BYTES:
        return line + b"\r\n"
    return b"\r\n ".join(_folded(line)) + b"\r\n"


def escaped(text: str) -> str:
    """Returns a text as a value (section 3.3.11). Control characters other than tabs and line ends cannot stand in a file."""
    text = text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,").replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\\n")
    return text if text.isprintable() else "".join(each for each in text if each == "\t" or (each >= " " and each != "\x7f"))


def unescaped(value: str) -> str:
    """Returns the text of a value."""
    if "\\" not in value:
        return value
    return _ESCAPED.sub(lambda found: "\n" if found[1] in "nN" else found[1], value)


def _unfolded(text: str) -> Iterator[tuple[int, str]]:
    """Yields each line, with the lines that continue it and the number of its first one."""
    number, parts = 0, list[str]()
    # Not splitlines: it also splits at characters that are no ends of lines here.
    for index, raw in enumerate(text.split("\n"), 1):
        line = raw.removesuffix("\r")
        if line[:1] in (" ", "\t") and parts:
            parts.append(line[1:])
            continue
        if parts:
            yield number, "".join(parts)
        number, parts = index, [line] if line.strip() else []
    if parts:
        yield number, "".join(parts)


def _property(line: str, number: int) -> tuple[str, Property]:
    found = _NAME.match(line)
    if found is None:
        raise UnreadableFile(f"line {number} is not a line of iCalendar")
    end = found.end()
    parameters = {}
    while (parameter := _PARAMETER.match(line, end)) is not None:
        parameters[parameter[1].upper()] = parameter[2].replace('"', "")
        end = parameter.end()
    if line[end : end + 1] != ":":
        raise UnreadableFile(f"line {number} is not a line of iCalendar")
    return found[0].upper(), Property(line[end + 1 :], parameters)


def _folded(line: bytes) -> Iterator[bytes]:
    """Yields the parts of a line, without splitting a character."""
    start, room = 0, _LINE_BYTES
    while start < len(line):
        end = min(start + room, len(line))
        while end < len(line) and line[end] & 0xC0 == 0x80:
            end -= 1
        yield line[start:end]
        start, room = end, _LINE_BYTES - 1


def _quoted(value: str) -> str:
    return f'"{value}"' if any(each in value for each in ";:,") else value
