"""Compiles a segmentation expression, the value of the `where` parameter, into a predicate on events or profiles.

    properties["plan"] == "team" and not defined(user["$email"]) or event["$time"] < datetime("2024-03-01")

The parser reads the documented grammar (docs: reference/segmentation-expressions.mdx): properties, literals, lists,
`+ - * / %`, comparisons, `in`, `and`, `or`, `not`, `floor`, `round`, `ceil`, `boolean`, `number`, `string` and
`defined`. It also reads undocumented forms that clients of the export endpoint send: `user["x"]`, `event["$time"]`, `=`
for `==`, words in upper case, `string(x, default)`, `any(X, list, condition)`, and `datetime` with an ISO time or with
seconds since 1970. Mixpanel does not document precedence, so it is the same as in Python, and operators with equal
precedence apply from left to right. Everything else is rejected, with a message about this limit of the simulator.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping

from mixpanel_export.simulator import terms
from mixpanel_export.simulator.terms import Term

GRAMMAR = (
    "this simulator reads only the grammar of docs.mixpanel.com/reference/segmentation-expressions"
    ' and user["x"], event["$time"], any() and datetime()'
)
"""The final part of every message about a rejected expression."""

MAX_DEPTH = 32
"""The maximum nesting of parentheses, lists, calls, `not` and signs, far below the limit of Python's stack."""

MAX_ANY = 3
"""The maximum nesting of `any`. Each level multiplies the work by the length of its list."""

Predicate = Callable[[bytes, bytes], bool]
"""Takes an event's `time` (empty if it has none) and `properties` as JSON text; returns whether the event matches."""

ProfilePredicate = Callable[[str, bytes, Mapping[str, int]], bool]
"""Takes a profile's id, its properties as JSON text, and its number of events for each of the request's `behaviors`."""

_TOKEN = re.compile(
    r'(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)'
    r"|(?P<word>[A-Za-z_]\w*)|(?P<sign>[=!<>]=|[-+*/%=<>()\[\],])|(?P<unknown>\S)",
    re.DOTALL | re.ASCII,
)
_MAX_SHOWN = 50  # the maximum number of characters that a message shows from a token
_FUNCTIONS = frozenset(
    {"defined", "datetime", "any", "boolean", "number", "string", "floor", "round", "ceil"}
)
_RESERVED = _FUNCTIONS | {
    "and", "or", "not", "in", "true", "false", "properties", "user", "event", "behaviors",
}  # fmt: skip


class WhereError(ValueError):
    """The expression cannot be parsed. The message contains the token that caused the error."""


def compiled(expression: str) -> Predicate:
    """Return the predicate for *expression*.

    Raises:
        WhereError: The expression is malformed, nested too deeply, or outside the grammar above.
    """
    term = _Parser(expression).parse()
    return lambda time, properties: term(terms.scope(time, properties)) is True


def compiled_for_profiles(expression: str) -> ProfilePredicate:
    """Return the predicate on user profiles for *expression*.

    Raises:
        WhereError: See `compiled`.
    """
    term = _Parser(expression).parse()
    return lambda *profile: term(terms.profile_scope(*profile)) is True


class _Parser:
    """A recursive descent parser with a method for each precedence level, from low to high."""

    def __init__(self, expression: str) -> None:
        self._tokens = _tokens(expression)
        self._kind, self._token = next(self._tokens)
        self._depth = 0
        self._names: list[str] = []

    def parse(self) -> Term:
        """Parse the whole expression."""
        term = self._disjunction()
        if self._kind != "end":
            raise _unexpected(self._token)
        return term

    def _disjunction(self) -> Term:
        parts = [self._conjunction()]
        while self._skip("or"):
            parts.append(self._conjunction())
        return terms.any_of(parts)

    def _conjunction(self) -> Term:
        parts = [self._negation()]
        while self._skip("and"):
            parts.append(self._negation())
        return terms.all_of(parts)

    def _negation(self) -> Term:
        # Parentheses, lists, calls and `not` nest through this method; signs nest through `_unary`.
        self._enter()
        term = terms.not_(self._negation()) if self._skip("not") else self._comparison()
        self._depth -= 1
        return term

    def _comparison(self) -> Term:
        return self._left_to_right(self._sum, *terms.COMPARISONS)

    def _sum(self) -> Term:
        return self._left_to_right(self._product, "+", "-")

    def _product(self) -> Term:
        return self._left_to_right(self._unary, "*", "/", "%")

    def _left_to_right(self, operand: Callable[[], Term], *operators: str) -> Term:
        first, rest = operand(), []
        while (operator := self._token.lower()) and self._skip(*operators):
            rest.append((operator, operand()))
        return terms.left_to_right(first, rest)

    def _unary(self) -> Term:
        if self._kind == "word" and self._token.lower() == "not":
            return self._negation()
        if not self._skip("-"):
            return self._operand()
        self._enter()
        term = terms.minus(self._unary())
        self._depth -= 1
        return term

    def _operand(self) -> Term:
        kind, token = self._kind, self._advance()
        match kind, token:
            case "sign", "(":
                term = self._disjunction()
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
        while not self._skip("]"):
            if parts:
                self._expect(",")
            parts.append(self._disjunction())
        return lambda scope: [part(scope) for part in parts]

    def _word(self, word: str) -> Term:
        """Parse a term that starts with *word*: a name from `any`, a literal, a property or a call."""
        if word in self._names:
            return terms.bound_item(word)
        match word.lower():
            case "true" | "false" as literal:
                return terms.constant(literal == "true")
            case "properties" | "user" | "event" | "behaviors" as source:
                self._expect("[")
                name = _unquoted(self._take("text"))
                self._expect("]")
                return terms.item(source, name)
            case function if function in _FUNCTIONS:
                self._expect("(")
                term = self._call(function)
                self._expect(")")
                return term
        raise _unexpected(word)

    def _call(self, function: str) -> Term:
        if function == "any":
            return self._any()
        if function == "datetime":
            return self._datetime()
        argument = self._disjunction()
        if function == "string":
            return terms.as_string(argument, self._disjunction() if self._skip(",") else terms.constant(None))
        return terms.FUNCTIONS[function](argument)

    def _datetime(self) -> Term:
        sign = "-" if self._skip("-") else ""
        token = sign + (self._take("number") if sign else self._take("text", "number"))
        try:
            value = _unquoted(token) if token[0] == '"' else terms.number(token)
            return terms.constant(terms.to_time(value))
        except (ValueError, OverflowError) as error:
            raise WhereError(f"datetime({token[:_MAX_SHOWN]}) is not a time") from error

    def _any(self) -> Term:
        name = self._take("word")
        if name.lower() in _RESERVED:
            raise _unexpected(name)
        if len(self._names) == MAX_ANY:
            raise WhereError(f"any() is nested more than {MAX_ANY} deep")
        self._expect(",")
        items = self._disjunction()
        self._expect(",")
        self._names.append(name)
        condition = self._disjunction()
        self._names.pop()
        return terms.any_item(name, items, condition)

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise WhereError(f"the expression is nested more than {MAX_DEPTH} deep")

    def _skip(self, *tokens: str) -> bool:
        """Skip the current token if it is one of *tokens*, and return whether it was."""
        matches = self._kind in {"word", "sign"} and self._token.lower() in tokens
        if matches:
            self._advance()
        return matches

    def _expect(self, sign: str) -> None:
        if not self._skip(sign):
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
    """Yield the kind and text of each token, followed by an end token."""
    for match in _TOKEN.finditer(expression):
        if match.lastgroup == "unknown":
            raise _unexpected(expression[match.start() :])
        yield str(match.lastgroup), match[0]
    yield "end", ""


def _unquoted(token: str) -> str:
    try:
        return str(json.loads(token, strict=False))
    except ValueError as error:
        raise WhereError(f"{token[:_MAX_SHOWN]} has an unknown escape") from error


def _unexpected(token: str) -> WhereError:
    return WhereError(f"unexpected {token[:_MAX_SHOWN] or 'end'}")
