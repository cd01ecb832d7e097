"""The largest sizes of modules and functions; and the rule applied to planted texts that violate it."""

import pytest

from tests.architecture import rules
from tests.architecture.rules import PRODUCT, Module, modules


@pytest.mark.parametrize("module", modules(*PRODUCT, "tests"), ids=lambda module: module.name)
def test_modules_and_functions_are_short(module: Module) -> None:
    assert rules.size_breaks(module) == []


@pytest.mark.parametrize(("name", "lines"), [("servicekit.stores.redis", 400), ("task_service.app", 150), ("task_service.__main__", 30)])
def test_a_planted_long_module_is_found(name: str, lines: int) -> None:
    assert rules.size_breaks(Module(name, "x = 1\n" * lines)) == []
    assert rules.size_breaks(Module(name, "x = 1\n" * (lines + 1))) == [f"{name} has {lines + 1} lines, more than {lines}"]


@pytest.mark.parametrize("definition", ["def f():\n", "async def f():\n", "class C:\n  def f(self):\n"])
def test_a_planted_long_function_is_found(definition: str) -> None:
    assert rules.size_breaks(Module("servicekit.x", definition + "    x = 1\n" * 59)) == []
    assert rules.size_breaks(Module("servicekit.x", definition + "    x = 1\n" * 60)) == ["servicekit.x.f has 61 lines, more than 60"]
