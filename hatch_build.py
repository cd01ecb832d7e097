"""The package's build hook: it generates gen/ from proto/ before the package is built or installed in editable mode."""

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProtoHook(BuildHookInterface[Any]):
    """Runs proto/generate.py."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Generates gen/. Hatchling calls it before every kind of build."""
        root = Path(self.root)
        spec = importlib.util.spec_from_file_location("generate", root / "proto" / "generate.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.generate(root)
