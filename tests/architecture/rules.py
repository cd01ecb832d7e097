"""The rules that import-linter's contracts (pyproject.toml) cannot state: functions from a source to what breaks them. They only read its syntax."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("auth_service", "task_service")
PRODUCT = ("servicekit", *SERVICES, "gateway", "devstack")

MAX_MODULE_LINES, MAX_APP_LINES, MAX_MAIN_LINES = 400, 150, 30
MAX_FUNCTION_LINES = 60

WIRE = ("grpc", "google.protobuf", "google.rpc", "google.api", "taskmanager", "buf", "protovalidate", "grpc_health", "grpc_reflection", "grpc_status")
STORES = ("asyncpg", "redis")
# The composition root hands the descriptors of the services to the server, and that is all that it knows of the wire.
DESCRIPTORS = re.compile(r"taskmanager\.\w+\.v\d+(\.\w+_pb2)?")
SERVICEKIT_WIRE = frozenset(
    {
        *("rpc.admission", "rpc.call_log", "rpc.field_mask", "rpc.health", "rpc.method", "rpc.metrics", "rpc.pipeline", "rpc.reflection"),
        *("rpc.server", "rpc.status", "rpc.timestamps", "process.app", "process.healthcheck", "process.logging", "process.telemetry"),
    }
)
SERVICE_WIRE = frozenset({"handler", "messages", "auth_events"})
SERVICEKIT_STORES: Mapping[str, frozenset[str]] = {
    "asyncpg": frozenset({"stores.postgres", "stores.migrate", "process.telemetry"}),
    "redis": frozenset({"stores.redis", "stores.redis_reads", "stores.wakeups"}),
}
SERVICE_STORES: Mapping[str, frozenset[str]] = {"asyncpg": frozenset({"repository"}), "redis": frozenset({"cache"})}
STATEMENTS = frozenset({"repository", "list_statement", "cache"})
SERVICEKIT_STATEMENTS = frozenset({"stores.postgres", "stores.migrate", "access.rate_limit"})

SQL = re.compile(
    r"^\s*(SELECT\s.+|INSERT\s+INTO\s.+|UPDATE\s+\w+[\w.]*\s+(AS\s+\w+\s+)?SET\s.+|DELETE\s+FROM\s.+|WITH\s+\w+\s+AS\s*\(.+|CREATE\s+(TABLE|SCHEMA|INDEX)\s.+)",
    re.DOTALL,
)
REDIS = re.compile(r"redis\.call\(")


@dataclass(frozen=True)
class Module:
    """A module's dotted name and its text."""

    name: str
    text: str

    @property
    def package(self) -> str:
        """The first part of the name."""
        return self.name.partition(".")[0]

    @property
    def leaf(self) -> str:
        """What follows the package, `""` for the package itself."""
        return self.name.partition(".")[2]

    @property
    def file(self) -> str:
        """The last part of the name: what the module is in its room."""
        return self.name.rpartition(".")[2]

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax."""
        return ast.parse(self.text)

    @cached_property
    def imports(self) -> frozenset[str]:
        """The dotted names of all that is imported, anywhere in it; of `from a import b` both `a` and `a.b`."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                found.update({base, *(f"{base}.{alias.name}" for alias in node.names)})
        return frozenset(found)

    def imports_any(self, packages: Iterable[str]) -> frozenset[str]:
        """Those of its imports that lie in one of the packages."""
        return frozenset(name for name in self.imports if any(_within(name, package) for package in packages))

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parents = self.name.split(".")[: -node.level]
        return ".".join([*parents, node.module] if node.module else parents)


def modules(*packages: str) -> list[Module]:
    """The modules of packages in this repository."""
    found = []
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(Module(".".join(parts).removesuffix(".__init__"), path.read_text(encoding="utf-8")))
    return found


def wire_breaks(module: Module) -> list[str]:
    """Knowledge of grpc and protobuf outside of the modules that are there for it."""
    used = module.imports_any(WIRE)
    if module.package == "servicekit":
        used = frozenset() if module.leaf in SERVICEKIT_WIRE else used
    elif module.file in SERVICE_WIRE:
        used = frozenset()
    elif module.leaf == "app":
        used = frozenset(name for name in used if not DESCRIPTORS.fullmatch(name))
    return [f"{module.name} imports {name}" for name in sorted(used)]


def store_breaks(module: Module) -> list[str]:
    """Knowledge of asyncpg and redis outside of the modules that are there for it."""
    allowed, place = (SERVICEKIT_STORES, module.leaf) if module.package == "servicekit" else (SERVICE_STORES, module.file)
    return [f"{module.name} imports {name}" for store in STORES if place not in allowed[store] for name in sorted(module.imports_any([store]))]


def statement_breaks(module: Module) -> list[str]:
    """SQL and Redis scripts in the text of other modules than those that are there for it."""
    if module.leaf in SERVICEKIT_STATEMENTS if module.package == "servicekit" else module.file in STATEMENTS:
        return []
    return [
        f"{module.name}:{node.lineno} holds {_text(node)[:40]!r}"
        for node in _literals(module.tree)
        if SQL.match(_text(node)) or REDIS.search(_text(node))
    ]


def size_breaks(module: Module) -> list[str]:
    """Modules and functions that are too long."""
    bound = {"app": MAX_APP_LINES, "__main__": MAX_MAIN_LINES}.get(module.leaf, MAX_MODULE_LINES)
    lines = len(module.text.splitlines())
    found = [f"{module.name} has {lines} lines, more than {bound}"] if lines > bound else []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append(f"{module.name}.{node.name} has {length} lines, more than {MAX_FUNCTION_LINES}")
    return found


def undocumented(module: Module) -> list[str]:
    """Modules that do not say what they are for."""
    return [] if ast.get_docstring(module.tree) or module.text == "" else [f"{module.name} has no docstring"]


def only_re_exports(module: Module) -> list[str]:
    """Modules that hold nothing but imports of other modules' names."""
    body = [node for node in module.tree.body if not _is_docstring(node) and not _is_all(node)]
    only = body and all(isinstance(node, ast.Import | ast.ImportFrom) for node in body)
    return [f"{module.name} only re-exports"] if only else []


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and [target.id for target in node.targets if isinstance(target, ast.Name)] == ["__all__"]


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _literals(tree: ast.Module) -> Iterator[ast.Constant | ast.JoinedStr]:
    """All texts but the docstrings; of an f-string the whole, its values left out."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            skipped.add(id(node.value))
        elif isinstance(node, ast.JoinedStr) and id(node) not in skipped:
            skipped.update(id(part) for part in node.values)
            yield node
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
