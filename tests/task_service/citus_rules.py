"""What a statement must not have so that Citus executes it too (docs/citus.md): patterns, each with examples that Citus 14 refuses or is slow at.

The patterns know no grammar, so they miss some statements. `make test-citus` executes the migrations on a real cluster.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from servicekit.stores.statements import statements

# Whether the rule is broken, and examples that break it.
Rule = tuple[Callable[[str], object], tuple[str, ...]]

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
# The body of a DO statement.
_BODY = re.compile(r"(\$\w*\$)(.*)\1", re.DOTALL)
# These tables stay on the coordinator, so they may have more.
_LOCAL = r"task\.(?:account_removals|cache_state|deletions|schema_migrations)\b"
_ALTER = rf"\bALTER\s+TABLE\s+(?:ONLY\s+)?(?!{_LOCAL})[^;]*"
# UPDATE, DO UPDATE and DELETE, not FOR UPDATE.
_CHANGES = rf"(?:(?<!\bFOR )(?<!\bKEY )\bUPDATE|\bDELETE\s+FROM)\s+(?!{_LOCAL})[^;]*?"
_VOLATILE = r"\b(?:clock_timestamp|timeofday|random|gen_random_uuid|uuidv[47]|nextval)\s*\("
# Not a variable or a parameter of a function.
_COLUMN = r"\b(?![vpo]_)[a-z]\w*(?:\.\w+)?"
_OF_SETTINGS = r"\b(?:to_char|to_jsonb?|jsonb?_build_\w+|row_to_json|array_to_string|concat(?:_ws)?|format|date_trunc|date_part|extract|age)\s*\("
# Words that may stand behind the name of a table that has no alias.
_KEYWORDS = (
    "AS|SET|ON|USING|WHERE|JOIN|LEFT|RIGHT|FULL|INNER|CROSS|NATURAL|GROUP|ORDER|HAVING|LIMIT|OFFSET|FOR|UNION|VALUES"
    "|SELECT|DEFAULT|RETURNING|INTO|LOOP"
)
_SOURCE = re.compile(
    rf"\b(?:FROM|JOIN|USING|UPDATE|INTO)\s+(?:ONLY\s+)?task\.(?P<table>\w+)\b(?!\s*\()(?:\s+(?:AS\s+)?(?!(?:{_KEYWORDS})\b)(?P<alias>\w+))?",
    re.IGNORECASE,
)


def _finds(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL).search


def _has_rows_as_values(sql: str) -> bool:
    """Whether a table's name or alias stands where a column could: before neither a dot nor a list of columns; or all of its columns as one row."""
    names = {match["alias"] or match["table"] for match in _SOURCE.finditer(sql)}
    rest = _SOURCE.sub(" ", sql)
    return any(re.search(rf"(?<![.\w'])(?<!\bAS ){name}\b(?!\s*[.(=':])|\(\s*{name}\.\*", rest, re.IGNORECASE) for name in names)


# Of the statements of functions, of DO, and of migrations.
EVERYWHERE: Final[Mapping[str, Rule]] = {
    "writes within a WITH": (
        _finds(r"\bWITH\b.*\bAS\b[^(]*\(\s*(INSERT|UPDATE|DELETE|MERGE)\b"),
        (
            "WITH made AS (INSERT INTO task.tasks (id) SELECT 1 RETURNING id) SELECT id FROM made",
            "with gone as materialized (/* all */ delete from task.changes where user_id = p_user returning seq) select count(*) from gone",
            "DO $$ BEGIN PERFORM 1; WITH x AS (DELETE FROM task.changes RETURNING user_id) SELECT count(*) FROM x; END $$",
        ),
    ),
    "locks rows of several users": (
        _finds(rf"^(?!.*\buser_id = [pv]_user\b(?!\s+OR\b))(?!.*\bFROM\s+{_LOCAL}).*\bFOR\s+(NO\s+KEY\s+)?(UPDATE|SHARE|KEY\s+SHARE)\b"),
        (
            "SELECT id FROM task.tasks LIMIT 1 FOR UPDATE SKIP LOCKED",
            "perform from task.tasks for no key update",
            "PERFORM FROM task.tasks WHERE user_id = ANY (p_users) FOR UPDATE",
            "PERFORM FROM task.tasks WHERE user_id = p_users[1] FOR SHARE",
            "PERFORM FROM task.tasks WHERE user_id = p_user OR true FOR UPDATE",
            "EXECUTE 'SELECT 1 FROM task.tasks FOR UPDATE'",
        ),
    ),
    "changes rows by a function that gives another value each time": (
        _finds(_CHANGES + _VOLATILE),
        (
            "UPDATE task.tasks SET updated_at = clock_timestamp() WHERE user_id = p_user",
            "update task.feed set epoch = gen_random_uuid()",
            "DELETE FROM task.changes WHERE at < clock_timestamp() - interval '7 days'",
            "INSERT INTO task.counters AS c (user_id) VALUES (p_user) ON CONFLICT (user_id) DO UPDATE SET closed_at = clock_timestamp()",
        ),
    ),
    "changes rows by a function of a column that depends on settings": (
        _finds(rf"{_CHANGES}(?:{_COLUMN}::text\b|{_COLUMN}\s*[-+]\s*(?:make_)?interval\b|{_OF_SETTINGS})"),
        (
            "UPDATE task.tasks SET labels = '{}' WHERE labels::text IS NOT NFC NORMALIZED",
            "UPDATE task.tasks SET updated_at = updated_at - interval '1 day'",
            "DELETE FROM task.tasks AS t WHERE t.deleted_at + interval '7 days' < now()",
            "update task.tasks set title = to_char(created_at, 'YYYY')",
            "UPDATE task.tasks SET description = array_to_string(labels, ',')",
            "UPDATE task.changes SET snapshot = snapshot || jsonb_build_object('x', kind)",
        ),
    ),
    "has a row of a table as a value": (
        _has_rows_as_values,
        (
            "INSERT INTO task.tasks AS t (id) VALUES (1) RETURNING t.id, t AS task",
            "SELECT t INTO v_row FROM task.tasks t WHERE user_id = p_user LIMIT 1",
            "SELECT tasks INTO v_row FROM task.tasks WHERE user_id = p_user LIMIT 1",
            "SELECT count(n) INTO v_count FROM task.notes AS n WHERE user_id = p_user",
            "select row(t.*)::task.tasks into v_row from task.tasks as t where user_id = p_user",
            "UPDATE task.tasks SET version = 1 WHERE user_id = p_user RETURNING tasks INTO v_row",
        ),
    ),
}
IN_FUNCTIONS: Final[Mapping[str, Rule]] = {
    **EVERYWHERE,
    "passes a row to a statement": (
        _finds(r"\b(INSERT INTO|UPDATE)\s+task\.[^;]*\b(to_jsonb|row_to_json)\((v|p|o)_\w+\)"),
        ("INSERT INTO task.changes (user_id, snapshot) VALUES (p_user, to_jsonb(v_task))",),
    ),
}
IN_MIGRATIONS: Final[Mapping[str, Rule]] = {
    **EVERYWHERE,
    "is a trigger": (
        _finds(r"\bCREATE\s+(OR\s+REPLACE\s+)?(CONSTRAINT\s+)?TRIGGER\b"),
        (
            "CREATE TRIGGER t AFTER INSERT ON task.tasks EXECUTE FUNCTION f()",
            "create constraint trigger t after insert on task.tasks execute function f()",
        ),
    ),
    "adds a column with a constraint or a sequence": (
        _finds(
            rf"{_ALTER}\bADD\s+(?!(?:CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN|EXCLUDE)\b)[^;]*"
            r"\b(CHECK|UNIQUE|REFERENCES|PRIMARY\s+KEY|AS\s+IDENTITY|(big|small)?serial)\b"
        ),
        (
            "ALTER TABLE task.tasks ADD COLUMN x integer NOT NULL DEFAULT 0 CHECK (x >= 0)",
            "alter table task.tasks add x integer unique",
            "ALTER TABLE task.tasks ADD COLUMN x integer, ADD CONSTRAINT x_positive CHECK (x >= 0)",
            "ALTER TABLE task.tasks ADD COLUMN x bigint GENERATED ALWAYS AS IDENTITY",
        ),
    ),
    "adds a constraint together with something else": (
        _finds(rf"{_ALTER}\bADD\s+(CONSTRAINT|CHECK)\b[^;]*,\s*(ADD|ALTER|DROP|VALIDATE)\b"),
        ("ALTER TABLE task.tasks ADD CONSTRAINT x CHECK (version > 0), ADD COLUMN y integer",),
    ),
    "changes how a column is stored": (
        _finds(rf"{_ALTER}\bSET\s+(STORAGE|COMPRESSION)\b"),
        ("ALTER TABLE task.tasks ALTER COLUMN title SET STORAGE EXTERNAL",),
    ),
    "adds a column with a value that differs between servers": (
        _finds(rf"\bADD\b[^;]*\bDEFAULT\s+(?:\w+\.)?{_VOLATILE}"),
        (
            "ALTER TABLE task.tasks ADD COLUMN other uuid NOT NULL DEFAULT gen_random_uuid()",
            "alter table task.feed add other uuid not null default pg_catalog.uuidv7()",
        ),
    ),
}


def broken_by_function(body: str) -> list[str]:
    """Returns the rules that the statements of a function's body break."""
    return [rule for statement in _bare(body) for rule in _broken(statement, IN_FUNCTIONS)]


def broken_by_migration(sql: str) -> list[str]:
    """Returns the rules that the statements of a migration break. `broken_by_function` judges the functions that it creates."""
    found = []
    for statement in _bare(sql):
        if re.match(r"DO\b", statement, re.IGNORECASE):
            found += [rule for _, body in _BODY.findall(statement) for rule in broken_by_function(body)]
        elif not re.match(r"CREATE\s+(OR\s+REPLACE\s+)?(FUNCTION|PROCEDURE)\b", statement, re.IGNORECASE):
            found += _broken(statement, IN_MIGRATIONS)
    return found


def _bare(sql: str) -> list[str]:
    return [_COMMENT.sub(" ", statement).strip() for statement in statements(sql)]


def _broken(statement: str, rules: Mapping[str, Rule]) -> list[str]:
    return [rule for rule, (finds, _) in rules.items() if finds(statement)]
