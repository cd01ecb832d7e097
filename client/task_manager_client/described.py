"""Gives the methods of both clients the names, texts and parameters of the functions from which they are made, for help() and editors."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_args

Method = TypeVar("Method", bound=Callable[..., Any])


def described(source: Callable[..., Any], method: Method, skip: int = 0) -> Method:
    """Returns the method, described as its source: without the first `skip` parameters, and with what the caller gets as the type of the result."""
    signature = inspect.signature(source)
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY), *list(signature.parameters.values())[skip:]]
    # The last argument of Operation[T] and of Steps[T]. For an iterator the documentation has to say it.
    result = get_args(signature.return_annotation)[-1]
    method.__name__, method.__doc__ = source.__name__, source.__doc__
    method.__dict__["__signature__"] = signature.replace(
        parameters=parameters, return_annotation=signature.empty if result in (None, type(None)) else result
    )
    return method
