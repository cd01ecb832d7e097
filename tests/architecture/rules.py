"""Rules that import-linter's contracts (pyproject.toml) cannot state. Each is a function that reads a module's syntax and returns the violations."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("auth_service", "task_service")
PRODUCT = ("servicekit", *SERVICES, "gateway", "devstack", "task_manager_client")

MAX_MODULE_LINES, MAX_APP_LINES, MAX_MAIN_LINES = 400, 150, 30
MAX_FUNCTION_LINES = 60

WIRE = ("grpc", "google.protobuf", "google.rpc", "google.api", "taskmanager", "buf", "protovalidate", "grpc_health", "grpc_reflection", "grpc_status")
STORES = ("asyncpg", "redis")
# app.py passes the service descriptors to the server. It uses nothing else of the wire format.
DESCRIPTORS = re.compile(r"taskmanager\.\w+\.v\d+(\.\w+_pb2)?")
SERVICEKIT_WIRE = frozenset(
    {
        *("rpc.admission", "rpc.call_log", "rpc.field_mask", "rpc.health", "rpc.method", "rpc.metrics", "rpc.pipeline", "rpc.reflection"),
        *("rpc.server", "rpc.status", "rpc.text", "rpc.timestamps", "process.app", "process.healthcheck", "process.logging", "process.telemetry"),
    }
)
SERVICE_WIRE = frozenset({"handler", "checks", "messages", "auth_events"})
SERVICEKIT_STORES: Mapping[str, frozenset[str]] = {
    "asyncpg": frozenset({"stores.postgres", "stores.migrate", "stores.rights", "stores.distribute", "stores.wait", "process.telemetry"}),
    "redis": frozenset({"stores.redis", "stores.redis_session", "stores.wakeups"}),
}
SERVICE_STORES: Mapping[str, frozenset[str]] = {"asyncpg": frozenset({"repository"}), "redis": frozenset({"values"})}
STATEMENTS = frozenset({"repository", "list_statement", "values"})
SERVICEKIT_STATEMENTS = frozenset({"stores.postgres", "stores.session", "stores.migrate", "stores.rights", "stores.distribute", "access.rate_limit"})

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
        """The part of the name after the package, `""` for the package itself."""
        return self.name.partition(".")[2]

    @property
    def file(self) -> str:
        """The last part of the name: the module's file in its room."""
        return self.name.rpartition(".")[2]

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.text)

    @cached_property
    def imports(self) -> frozenset[str]:
        """The dotted names of all imports, also those inside functions; for `from a import b` both `a` and `a.b`."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                found.update({base, *(f"{base}.{alias.name}" for alias in node.names)})
        return frozenset(found)

    def imports_any(self, packages: Iterable[str]) -> frozenset[str]:
        """The imports that belong to one of the packages."""
        return frozenset(name for name in self.imports if any(_within(name, package) for package in packages))

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parents = self.name.split(".")[: -node.level]
        return ".".join([*parents, node.module] if node.module else parents)


def package_folder(package: str) -> Path:
    """Returns the folder of a package of this repository. The client is a distribution of its own, in a folder of its own."""
    return ROOT / ("client" if package == "task_manager_client" else "") / package


def modules(*packages: str) -> list[Module]:
    """Returns all modules of some packages of this repository."""
    found = []
    for package in packages:
        folder = package_folder(package)
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            found.append(Module(".".join(parts).removesuffix(".__init__"), path.read_text(encoding="utf-8")))
    return found


def wire_breaks(module: Module) -> list[str]:
    """Returns imports of grpc and protobuf in modules that must not know the wire format."""
    used = module.imports_any(WIRE)
    if module.package == "servicekit":
        used = frozenset() if module.leaf in SERVICEKIT_WIRE else used
    elif module.file in SERVICE_WIRE:
        used = frozenset()
    elif module.leaf == "app":
        used = frozenset(name for name in used if not DESCRIPTORS.fullmatch(name))
    return [f"{module.name} imports {name}" for name in sorted(used)]


def store_breaks(module: Module) -> list[str]:
    """Returns imports of asyncpg and redis in modules that must not know a store."""
    allowed, place = (SERVICEKIT_STORES, module.leaf) if module.package == "servicekit" else (SERVICE_STORES, module.file)
    return [f"{module.name} imports {name}" for store in STORES if place not in allowed[store] for name in sorted(module.imports_any([store]))]


def statement_breaks(module: Module) -> list[str]:
    """Returns SQL statements and Redis scripts in modules that must not contain them."""
    if module.leaf in SERVICEKIT_STATEMENTS if module.package == "servicekit" else module.file in STATEMENTS:
        return []
    return [
        f"{module.name}:{node.lineno} holds {_text(node)[:40]!r}"
        for node in _literals(module.tree)
        if SQL.match(_text(node)) or REDIS.search(_text(node))
    ]


def size_breaks(module: Module) -> list[str]:
    """Returns modules and functions that are too long."""
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
    """Returns modules without a docstring."""
    return [] if ast.get_docstring(module.tree) or module.text == "" else [f"{module.name} has no docstring"]


def only_re_exports(module: Module) -> list[str]:
    """Returns modules that contain only imports of other modules' names."""
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
    """Yields all string literals except docstrings. An f-string is one literal, without its values."""
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
