"""The methods' own checks of requests: registration finds a check by its name, so a check without the name of an RPC would never run."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import pytest
from taskmanager.auth.v1 import user_pb2

import auth_service
import task_service
from auth_service.users.checks import UserChecks
from task_service.tasks.checks import TaskChecks
from tests.support.descriptors import rpcs

PREFIX = "check_"
PACKAGES = {"auth": auth_service, "task": task_service}


def _classes() -> Iterator[tuple[str, type]]:
    """Yields each class of a module `checks` with its program, auth or task."""
    for program, package in PACKAGES.items():
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(".checks"):
                members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
                yield from ((program, each) for _, each in members if each.__module__ == module.name)


def _fault(program: str, name: str, check: Callable[..., Any]) -> str:
    """Returns what prevents that the check runs for the requests of an RPC of the program, or ''."""
    method = "".join(word.capitalize() for word in name.removeprefix(PREFIX).split("_"))
    request = next((rpc.request for rpc in rpcs() if rpc.program == program and rpc.name.endswith(f".{method}")), None)
    if request is None:
        return f"there is no RPC {method}"
    taken = next(hint for parameter, hint in get_type_hints(check).items() if parameter != "return")
    return "" if taken is request else f"{method} has no {taken.__name__}"


CHECKS = [(program, name, check) for program, each in _classes() for name, check in vars(each).items() if name.startswith(PREFIX)]


def test_the_checks_of_both_services_are_seen() -> None:
    assert {each for _, each in _classes()} >= {UserChecks, TaskChecks}
    assert {program for program, _, _ in CHECKS} == set(PACKAGES)


@pytest.mark.parametrize(("program", "name", "check"), CHECKS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_check_has_the_name_and_the_request_of_an_rpc(program: str, name: str, check: Callable[..., Any]) -> None:
    assert _fault(program, name, check) == ""


def test_planted_checks_that_nothing_calls_are_found() -> None:
    def check(request: user_pb2.UpdateMeRequest, call: object) -> None:
        raise NotImplementedError

    assert _fault("auth", "check_update_me", check) == ""
    assert _fault("auth", "check_updateme", check) == "there is no RPC Updateme"
    assert _fault("task", "check_update_me", check) == "there is no RPC UpdateMe"
    assert _fault("auth", "check_register", check) == "Register has no UpdateMeRequest"
