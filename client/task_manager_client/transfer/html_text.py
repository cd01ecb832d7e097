"""The text of a description in HTML, as Vikunja's editor writes it."""

import re
from html.parser import HTMLParser
from typing import Final

_TAG: Final = re.compile(r"</?[a-zA-Z][^>]*>")
_BLOCKS: Final = frozenset(("p", "div", "li", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "tr", "br"))
_BLANK_LINES: Final = re.compile(r"\n{3,}")


def plain_text(text: str) -> str:
    """Returns the text without tags; a text that has none as it is. The address of a link stands behind its text."""
    if not _TAG.search(text):
        return text.strip()
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return _BLANK_LINES.sub("\n\n", "".join(reader.parts)).strip()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._address = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "li":
            self.parts.append("\n- ")
        elif tag in _BLOCKS and self.parts and not self.parts[-1].endswith(("\n", "- ")):
            self.parts.append("\n")
        if tag == "a":
            self._address = dict(attrs).get("href") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._address and self._address != (self.parts or [""])[-1]:
            self.parts.append(f" ({self._address})")
        if tag == "p":
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        self.parts.append(data)
