"""The statements of a migration, one by one."""

from pathlib import Path

import pytest

from servicekit.stores.statements import statements

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", []),
        ("-- nothing; at all\n/* ; */ ;", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;\nSELECT 2;\n", ["SELECT 1", "SELECT 2"]),
        ("SELECT 'a;''b;';SELECT 2", ["SELECT 'a;''b;'", "SELECT 2"]),
        ('SELECT 1 AS "a;b" -- it\'s; c\n;SELECT 2', ['SELECT 1 AS "a;b" -- it\'s; c', "SELECT 2"]),
        ("DO $$ BEGIN; END $$; SELECT $a$ ; $$ ; $a$ - 1 / 2, $1", ["DO $$ BEGIN; END $$", "SELECT $a$ ; $$ ; $a$ - 1 / 2, $1"]),
    ],
)
def test_a_semicolon_ends_a_statement_unless_it_is_quoted(sql: str, expected: list[str]) -> None:
    assert statements(sql) == expected


@pytest.mark.parametrize("path", sorted(ROOT.glob("*_service/migrations/*.sql")), ids=lambda path: path.stem)
def test_no_text_of_a_migration_is_lost(path: Path) -> None:
    found = statements(path.read_text())
    assert " ".join(found).replace(";", " ").split() == path.read_text().replace(";", " ").split()
    assert all(statement.partition(" ")[0].isupper() or statement.startswith("--") for statement in found)
