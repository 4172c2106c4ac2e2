"""Shortens the tracebacks of errors that public functions raise.

A notebook prints an error with its whole chain, and prints it twice if the chain has an exception group. This
package's errors say what failed and what to do, so their traceback and chain are removed.
"""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from mixpanel_export._error_base import Problem

P = ParamSpec("P")
T = TypeVar("T")


def short_tracebacks(function: Callable[P, T]) -> Callable[P, T]:
    """Shorten the tracebacks of errors that *function* raises."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            _shorten(error)
            raise

    return call


def short_tracebacks_async(
    function: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Shorten the tracebacks of errors that the coroutine function *function* raises."""

    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True
        try:
            return await function(*args, **kwargs)
        except BaseException as error:
            _shorten(error)
            raise

    return call


def _shorten(error: BaseException) -> None:
    """Remove the traceback and the chain of an error of this package. Remove exception groups from any other chain."""
    if isinstance(error, Problem):
        error.__traceback__ = error.__cause__ = error.__context__ = None
        error.__suppress_context__ = True
    seen: set[int] = set()
    chain: list[BaseException | None] = [error]
    while chain:
        link = chain.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            while isinstance(link.__context__, BaseExceptionGroup):
                link.__context__ = link.__context__.__context__
            chain += [link.__cause__, link.__context__]
