"""Errors that leave a public function: as themselves, without the frames and the task groups that they passed.

A notebook prints an error with all that is chained to it, and prints it twice if there is an exception group among
that. An error that is raised on purpose says in its text what failed and what to do, so it needs no more.
"""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from mixpanel_export._error_base import Problem

P = ParamSpec("P")
T = TypeVar("T")


def short_tracebacks(function: Callable[P, T]) -> Callable[P, T]:
    """Let errors leave *function* with a short traceback."""

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
    """Let errors leave the coroutine function *function* with a short traceback."""

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
    """Remove from an error of ours all that led to it, and from any other error the groups that it passed."""
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
