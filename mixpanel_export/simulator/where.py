"""`where`: the segmentation expressions that exports use, compiled to a predicate over events.

    properties["plan"] == "team" and not defined(user["$email"]) or event["$time"] < datetime("2024-03-01")

The subset is what clients of the export endpoint were seen to send: `properties["x"]`, `user["x"]`, `event["$time"]`,
comparisons, `in`, `and`, `or`, `not`, `defined(x)`, `datetime("2024-03-01T00:00:00")` or of seconds, `number(x)`,
`string(x, default)` and `any(X, list, condition)`. Words are read in either case, `=` means `==`, and there is no
arithmetic.
"""

import json
import re
from collections.abc import Callable, Iterator

from mixpanel_export.simulator import terms
from mixpanel_export.simulator.terms import Term

MAX_DEPTH = 32
"""How deep parentheses, lists, calls and `not` may stand in one another; Python's stack holds several times that."""

MAX_ANY = 3
"""How many `any` may stand in one another: each multiplies the work by the length of its list."""

Predicate = Callable[[bytes, bytes], bool]
"""Whether an event is wanted: its `time`, empty where absent, and its `properties`, both as JSON text."""

_TOKEN = re.compile(
    r'(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)'
    r"|(?P<word>[A-Za-z_]\w*)|(?P<sign>[=!<>]=|[=<>()\[\],])|(?P<odd>\S)",
    re.DOTALL | re.ASCII,
)
_SHOWN = 50  # characters of a token that an error shows
_WORDS = frozenset(
    "and or not in true false properties user event defined datetime number string any".split()  # noqa: SIM905 - reads as the grammar does
)


class WhereError(ValueError):
    """The expression is malformed; the message says how."""


def compiled(expression: str) -> Predicate:
    """Return the predicate that *expression* means.

    Raises:
        WhereError: It is malformed, or nested too deep.
    """
    term = _Parser(expression).whole()
    return lambda time, properties: term(terms.scope(time, properties)) is True


class _Parser:
    """Recursive descent, a method for each level of the grammar, the loosest first."""

    def __init__(self, expression: str) -> None:
        self._tokens = _tokens(expression)
        self._kind, self._token = next(self._tokens)
        self._depth = 0
        self._bound: list[str] = []

    def whole(self) -> Term:
        """Read all of the expression."""
        term = self._either()
        if self._kind != "end":
            raise _unexpected(self._token)
        return term

    def _either(self) -> Term:
        parts = [self._both()]
        while self._took("or"):
            parts.append(self._both())
        return terms.either(parts)

    def _both(self) -> Term:
        parts = [self._negation()]
        while self._took("and"):
            parts.append(self._negation())
        return terms.both(parts)

    def _negation(self) -> Term:
        # Every way into the depth leads through here.
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise WhereError(f"the expression is nested more than {MAX_DEPTH} deep")
        term = terms.negated(self._negation()) if self._took("not") else self._comparison()
        self._depth -= 1
        return term

    def _comparison(self) -> Term:
        left, sign = self._operand(), self._token.lower()
        if self._took("=", "==", "!=", "in", *terms.ORDERS):
            return terms.compared(sign, left, self._operand())
        return left

    def _operand(self) -> Term:
        kind, token = self._kind, self._advance()
        match kind, token:
            case "sign", "(":
                term = self._either()
                self._expect(")")
                return term
            case "sign", "[":
                return self._list()
            case "text", _:
                return terms.constant(_unquoted(token))
            case "number", _:
                return terms.constant(terms.number(token))
            case "word", _:
                return self._word(token)
        raise _unexpected(token)

    def _list(self) -> Term:
        parts: list[Term] = []
        while not self._took("]"):
            if parts:
                self._expect(",")
            parts.append(self._either())
        return lambda scope: [part(scope) for part in parts]

    def _word(self, word: str) -> Term:
        """Read what *word* begins: the name of a list element, a literal, a property or a call."""
        if word in self._bound:
            return terms.item(word)
        match word.lower():
            case "true" | "false" as literal:
                return terms.constant(literal == "true")
            case "properties" | "user" | "event" as source:
                self._expect("[")
                name = _unquoted(self._take("text"))
                self._expect("]")
                return terms.event_property(source, name)
            case "defined" | "datetime" | "number" | "string" | "any" as function:
                self._expect("(")
                term = self._call(function)
                self._expect(")")
                return term
        raise _unexpected(word)

    def _call(self, function: str) -> Term:
        match function:
            case "any":
                return self._any()
            case "datetime":
                return self._moment()
            case "defined":
                return terms.defined(self._either())
            case "number":
                return terms.as_number(self._either())
        return terms.as_string(self._either(), self._either() if self._took(",") else terms.constant(None))

    def _moment(self) -> Term:
        token = self._take("text", "number")
        try:
            given = _unquoted(token) if token[0] == '"' else terms.number(token)
            return terms.constant(terms.moment(given))
        except (ValueError, OverflowError) as error:
            raise WhereError(f"datetime({token[:_SHOWN]}) is no time") from error

    def _any(self) -> Term:
        name = self._take("word")
        if name.lower() in _WORDS:
            raise _unexpected(name)
        if len(self._bound) == MAX_ANY:
            raise WhereError(f"more than {MAX_ANY} any() stand in one another")
        self._expect(",")
        listed = self._either()
        self._expect(",")
        self._bound.append(name)
        condition = self._either()
        self._bound.pop()
        return terms.some(name, listed, condition)

    def _took(self, *tokens: str) -> bool:
        """Step over the current token if it is one of *tokens*, and say so."""
        found = self._kind in {"word", "sign"} and self._token.lower() in tokens
        if found:
            self._advance()
        return found

    def _expect(self, sign: str) -> None:
        if not self._took(sign):
            raise _unexpected(self._token)

    def _take(self, *kinds: str) -> str:
        if self._kind not in kinds:
            raise _unexpected(self._token)
        return self._advance()

    def _advance(self) -> str:
        token = self._token
        self._kind, self._token = next(self._tokens, ("end", ""))
        return token


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    """Yield kinds and texts of tokens, and an end."""
    for found in _TOKEN.finditer(expression):
        if found.lastgroup == "odd":
            raise _unexpected(expression[found.start() :])
        yield str(found.lastgroup), found[0]
    yield "end", ""


def _unquoted(token: str) -> str:
    try:
        return str(json.loads(token, strict=False))
    except ValueError as error:
        raise WhereError(f"{token[:_SHOWN]} has an unknown escape") from error


def _unexpected(token: str) -> WhereError:
    return WhereError(f"unexpected {token[:_SHOWN] or 'end'}")
