"""Splits the text of a migration into its statements.

PostgreSQL executes several statements at once. Citus does not, if they change distributed tables: it would send the whole text to each server.
"""

import re
from typing import Final

# What may contain a semicolon that ends no statement: a comment, a literal, a quoted name, a body in dollar quotes. Not BEGIN ATOMIC.
_QUOTED: Final = r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"|(?P<tag>\$\w*\$).*?(?P=tag)"
_PIECE: Final = re.compile(rf"(?P<end>;)|{_QUOTED}|[^;'\"$/-]+|.", re.DOTALL)
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


def statements(sql: str) -> list[str]:
    """Returns the statements in order, without the semicolons that end them. A text without a statement (only comments) is left out."""
    found, begin = [], 0
    for piece in _PIECE.finditer(sql):
        if piece["end"]:
            found.append(sql[begin : piece.start()])
            begin = piece.end()
    found.append(sql[begin:])
    return [one.strip() for one in found if _COMMENT.sub("", one).strip()]
