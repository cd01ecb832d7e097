"""The package's build hook: before the package is built or installed in editable mode, it generates gen/ from proto/ and copies Swagger UI."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GeneratingHook(BuildHookInterface[Any]):
    """Runs proto/generate.py and gateway/docs/vendor.py."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Writes what git ignores and the package needs. Hatchling calls it before every kind of build."""
        root = Path(self.root)
        _script(root / "proto" / "generate.py").generate(root)
        _script(root / "gateway" / "docs" / "vendor.py").vendor()


def _script(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
