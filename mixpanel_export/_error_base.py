"""The base class of errors and warnings. Its attributes are the reason, the advice, the argument and the days."""

import re
from collections.abc import Callable, Mapping
from typing import Self, TypedDict

ARGUMENTS = frozenset({
    "allow_empty", "allow_http", "append", "chunk_days", "events", "force", "from_date", "into", "limit", "max_wait", "max_workers", "overwrite", "parallel",
    "path", "per_hour", "per_second", "project_id", "project_timezone", "rebuild", "region", "replace", "resume", "table",
    "to_date", "where",
})  # fmt: skip
"""The arguments that advice may mention."""

_NAMED = re.compile(rf"\$({'|'.join(sorted(ARGUMENTS))})\b")


class Advice(str):
    """Advice on a problem. It mentions arguments by their Python names; `mpx` prints the names of its options instead.

    In *template*, `$max_wait` stands for the `max_wait` argument. `ARGUMENTS` contains the allowed names.
    """

    __slots__ = ("template",)
    template: str

    def __new__(cls, template: str) -> Self:
        source = template.template if isinstance(template, Advice) else template
        self = super().__new__(cls, _NAMED.sub(r"\1", source))
        self.template = source
        return self

    def __getnewargs__(self) -> tuple[str]:
        return (self.template,)

    @property
    def arguments(self) -> frozenset[str]:
        """The names of the arguments that the advice mentions."""
        return frozenset(_NAMED.findall(self.template))

    def worded(self, name: Callable[[str], str]) -> str:
        """Return the advice. *name* converts the name of each Python argument to the name that is printed."""
        return _NAMED.sub(lambda match: name(match[1]), self.template)


class Context(TypedDict, total=False):
    """The optional arguments of every `Problem`."""

    advice: str | None
    argument: str | None
    days: object


class ResponseContext(Context, total=False):
    """The optional arguments of every `APIError`: the arguments of `Problem`, the request and the response."""

    code: str | None
    status_code: int | None
    response_body: str | None
    request_method: str | None
    request_url: str | None
    request_params: Mapping[str, object] | None
    request_body: Mapping[str, object] | None


class Problem(Exception):  # noqa: N818 - the base class of warnings, too
    """The base class of this package's errors and warnings. Its text is one sentence: `{days}: {reason}; {advice}`.

    `reason` says what failed, and `advice` what to do next. `days` is any value whose `str()` lists days, such as
    `2024-01-01 to 2024-01-03`. `argument` is the name of the Python argument that is wrong, or that would solve the problem. All except
    `reason` may be None.
    """

    def __init__(
        self, reason: str, *, advice: str | None = None, argument: str | None = None, days: object = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = None if advice is None else Advice(advice)
        self.argument = argument
        self.days = days

    @property
    def message(self) -> str:
        """The whole sentence, as `str()` returns it."""
        return self.text()

    def text(self, *, days: bool = True, advice: bool = True, name: Callable[[str], str] = str) -> str:
        """Return the sentence, with or without *days* and *advice*. For *name*, see `Advice.worded`."""
        text = self._reason(name)
        if days and self.days is not None:
            text = f"{self.days}: {text}"
        if advice and self.advice is not None:
            text = f"{text}; {self.advice.worded(name)}"
        return text

    def _reason(self, _name: Callable[[str], str]) -> str:
        return self.reason

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text()!r})"

    def __reduce__(self) -> tuple[object, ...]:
        """Support copying and pickling. By default, the initializer would get only the reason, but most subclasses require more arguments."""
        return _rebuild, (type(self), self.reason), vars(self)


def _rebuild(kind: type[BaseException], reason: str) -> BaseException:
    error = kind.__new__(kind, reason)
    BaseException.__init__(error, reason)  # sets `args`, from which an OSError builds its text
    return error
