"""Gives the methods of both clients the names, texts and parameters of the functions from which they are made, for help() and editors."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def described(source: Callable[..., Any], method: Method, skip: int = 0) -> Method:
    """Returns the method, described as its source without the source's first `skip` parameters."""
    signature = inspect.signature(source)
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *list(signature.parameters.values())[skip:]]
    method.__name__, method.__doc__ = source.__name__, source.__doc__
    method.__dict__["__signature__"] = signature.replace(parameters=parameters)
    return method
