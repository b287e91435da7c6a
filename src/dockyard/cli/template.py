"""``--format``: the part of Go's text/template that people use on Docker's documents.

Fields and chains (``.State.Status``), ``$``, variables, literals, pipes, parentheses; the actions if/else if/else,
range (with else and ``$k, $v :=``), with, end, ``:=``; the functions json, join, lower, upper, title, split, len,
index, print, println, printf, eq, ne, lt, le, gt, ge, and, or, not, slice, pad, truncate. Comments and ``{{-``/``-}}``.

A field that a map lacks is ``<no value>``, as in Go. Pure: template and document in, text out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dockyard.errors import Code, InvalidParameter

BAD_TEMPLATE = Code("DY-CLI-001", InvalidParameter, "template parsing error: {cause}", hint="--format '{{{{json .}}}}'")

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|`[^`]*`|:=|[|(),]|\$?\.?[\w.]*[\w]|\$|\.|-?\d+(?:\.\d+)?|\S')
_ACTION = re.compile(r"\s*\{\{-|\{\{")
_MISSING = object()


class Node(NamedTuple):
    kind: str
    text: str
    tokens: list[str]
    body: list[Any]
    other: list[Any]


def render(template: str, document: Any, *, strict: bool = False) -> str:
    """Raises InvalidParameter."""
    return compiled(template, strict=strict)(document)


def compiled(template: str, *, strict: bool = False) -> Callable[[Any], str]:
    """What renders a document. ``strict``: a field that a document lacks is an error, as docker has it."""
    nodes, _ = _block(_pieces(template), 0, ())
    return lambda document: _Run(document, strict).block(nodes, document)


def _pieces(template: str) -> list[tuple[bool, str]]:
    """(is an action, text), with ``{{-`` and ``-}}`` trimming done."""
    found: list[tuple[bool, str]] = []
    position, trim = 0, False
    while (start := template.find("{{", position)) >= 0:
        end = template.find("}}", start)
        if end < 0:
            raise BAD_TEMPLATE(cause="unclosed action")
        text, action = template[position:start], template[start + 2 : end]
        text = text.lstrip() if trim else text
        if action.startswith("- "):
            text, action = text.rstrip(), action[1:]
        trim = action.endswith(" -")
        found += [(False, text), (True, action.removesuffix(" -").strip())]
        position = end + 2
    tail = template[position:]
    found.append((False, tail.lstrip() if trim else tail))
    return [piece for piece in found if piece[0] or piece[1]]


def _block(pieces: Sequence[tuple[bool, str]], at: int, ends: tuple[str, ...]) -> tuple[list[Node], int]:
    """Nodes up to one of ``ends`` (not consumed)."""
    nodes: list[Node] = []
    while at < len(pieces):
        action, text = pieces[at]
        if not action:
            nodes.append(Node("text", text, [], [], []))
            at += 1
            continue
        word = text.split(" ", 1)[0]
        if word in ends:
            return nodes, at
        if word in ("if", "range", "with"):
            node, at = _control(pieces, at, word, text[len(word) :])
            nodes.append(node)
            continue
        if word in ("end", "else"):
            raise BAD_TEMPLATE(cause=f"unexpected {{{{{word}}}}}")
        if text and not text.startswith("/*"):
            nodes.append(Node("value", "", _tokens(text), [], []))
        at += 1
    if ends:
        raise BAD_TEMPLATE(cause="unexpected EOF: {{end}} is missing")
    return nodes, at


def _control(pieces: Sequence[tuple[bool, str]], at: int, word: str, condition: str) -> tuple[Node, int]:
    body, at = _block(pieces, at + 1, ("end", "else"))
    other: list[Node] = []
    text = pieces[at][1]
    if text.startswith("else"):
        rest = text[4:].strip()
        if rest.startswith(("if ", "with ")):
            inner = rest.split(" ", 1)[0]
            node, at = _control(pieces, at, inner, rest[len(inner) :])
            return Node(word, "", _tokens(condition), body, [node]), at
        other, at = _block(pieces, at + 1, ("end",))
    return Node(word, "", _tokens(condition), body, other), at + 1


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


class _Run:
    def __init__(self, root: Any, strict: bool) -> None:
        self.variables: dict[str, Any] = {"$": root}
        self._strict = strict

    def _field(self, value: Any, path: str) -> Any:
        found = field(value, path)
        if self._strict and found is _MISSING:
            raise BAD_TEMPLATE(cause=f'executing "" at <.{path}>: map has no entry for key "{path.rpartition(".")[2]}"')
        return found

    def block(self, nodes: Sequence[Node], dot: Any) -> str:
        return "".join(self._node(node, dot) for node in nodes)

    def _node(self, node: Node, dot: Any) -> str:
        if node.kind == "text":
            return node.text
        names, tokens = _declared(node.tokens)
        if node.kind == "range":
            return self._range(node, names, self._pipe(tokens, dot), dot)
        value = self._pipe(tokens, dot)
        for name in names:
            self.variables[name] = value
        if node.kind == "value":
            return "" if names else shown(value)
        if not truth(value):
            return self.block(node.other, dot)
        return self.block(node.body, value if node.kind == "with" else dot)

    def _range(self, node: Node, names: list[str], value: Any, dot: Any) -> str:
        if isinstance(value, dict):
            pairs: list[tuple[Any, Any]] = [(key, value[key]) for key in sorted(value)]
        elif isinstance(value, int) and not isinstance(value, bool):
            pairs = [(number, number) for number in range(value)]
        else:
            pairs = list(enumerate(value if isinstance(value, list) else []))
        if not pairs:
            return self.block(node.other, dot)
        out = []
        for key, item in pairs:
            for name, bound in zip(names, (key, item) if len(names) > 1 else (item,), strict=False):
                self.variables[name] = bound
            out.append(self.block(node.body, item))
        return "".join(out)

    def _pipe(self, tokens: list[str], dot: Any) -> Any:
        value: Any = _MISSING
        for stage in _split(tokens, "|"):
            value = self._command(stage, dot, value)
        return value

    def _command(self, tokens: list[str], dot: Any, piped: Any) -> Any:
        if not tokens:
            raise BAD_TEMPLATE(cause="missing value for command")
        head = tokens[0]
        function = FUNCTIONS.get(head)
        terms = self._terms(tokens[1:] if function else tokens, dot)
        if function is None:
            if terms and callable(terms[0]):
                return terms[0](*terms[1:], *([] if piped is _MISSING else [piped]))
            if len(terms) != 1 or piped is not _MISSING:
                raise BAD_TEMPLATE(cause=f'function "{head}" not defined')
            return terms[0]
        if piped is not _MISSING:
            terms.append(piped)
        return self._called(head, terms)

    @staticmethod
    def _called(name: str, terms: list[Any]) -> Any:
        try:
            return FUNCTIONS[name](*terms)
        except (TypeError, ValueError, IndexError, KeyError, AttributeError) as wrong:
            raise BAD_TEMPLATE(cause=f"error calling {name}: {wrong}") from None

    def _terms(self, tokens: list[str], dot: Any) -> list[Any]:
        terms: list[Any] = []
        index = 0
        while index < len(tokens):
            token = tokens[index]
            if token == "(":
                end = _closing(tokens, index)
                value = self._pipe(tokens[index + 1 : end], dot)
                index = end + 1
                if index < len(tokens) and tokens[index].startswith(".") and len(tokens[index]) > 1:
                    value = self._field(value, tokens[index][1:])
                    index += 1
                terms.append(value)
                continue
            terms.append(self._operand(token, dot))
            index += 1
        return terms

    def _operand(self, token: str, dot: Any) -> Any:
        if token == ".":
            return dot
        if token.startswith("."):
            return self._field(dot, token[1:])
        if token.startswith("$"):
            name, _, path = token.partition(".")
            if name not in self.variables:
                raise BAD_TEMPLATE(cause=f'undefined variable "{name}"')
            return self._field(self.variables[name], path) if path else self.variables[name]
        if token[0] == '"':
            return _literal(token)
        if token[0] == "`":
            return token[1:-1]
        if token in ("true", "false", "nil"):
            return {"true": True, "false": False, "nil": None}[token]
        if token in FUNCTIONS:
            return self._called(token, [])
        try:
            return float(token) if "." in token else int(token)
        except ValueError:
            raise BAD_TEMPLATE(cause=f'function "{token}" not defined') from None


def _literal(token: str) -> str:
    try:
        return str(json.loads(token, strict=False))
    except ValueError:
        raise BAD_TEMPLATE(cause=f"unterminated or broken string {token}") from None


def _declared(tokens: list[str]) -> tuple[list[str], list[str]]:
    if ":=" not in tokens:
        return [], tokens
    at = tokens.index(":=")
    return [token for token in tokens[:at] if token.startswith("$")], tokens[at + 1 :]


def _split(tokens: list[str], mark: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        if token == mark and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _closing(tokens: list[str], at: int) -> int:
    depth = 0
    for index in range(at, len(tokens)):
        depth += (tokens[index] == "(") - (tokens[index] == ")")
        if depth == 0:
            return index
    raise BAD_TEMPLATE(cause="unclosed left paren")


def field(value: Any, path: str) -> Any:
    """``.A.B`` of a document; letter case must fit, as in Go's struct fields."""
    for name in path.split("."):
        if isinstance(value, dict):
            # Go's name of the field in Docker's structs is ID where the document says Id.
            value = value.get(name, value.get("Id", _MISSING) if name == "ID" else _MISSING)
        elif value is not _MISSING and value is not None:
            raise BAD_TEMPLATE(cause=f"can't evaluate field {name} in {type(value).__name__}")
    return value


def truth(value: Any) -> bool:
    return value is not _MISSING and bool(value)


def shown(value: Any) -> str:
    """As Go prints it."""
    if value is _MISSING or value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{shown(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(shown(item) for item in value) + "]"
    return str(value)


def _json(value: Any) -> str:
    return json.dumps(None if value is _MISSING else value, separators=(",", ":"), ensure_ascii=False)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, "")
        elif isinstance(value, (list, str)):
            value = value[key]
        else:
            return ""
    return value


def _printf(form: str, *values: Any) -> str:
    ready = tuple(shown(value) if isinstance(value, (dict, list, bool)) else value for value in values)
    return re.sub(r"%(-?\d*(?:\.\d+)?)v", r"%\1s", form).replace("%q", '"%s"') % ready


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "join": lambda items, mark: mark.join(shown(item) for item in items or []),
    "lower": lambda text: shown(text).lower(),
    "upper": lambda text: shown(text).upper(),
    "title": lambda text: shown(text).title(),
    "split": lambda text, mark: text.split(mark),
    "len": lambda value: 0 if value is None or value is _MISSING else len(value),
    "index": _index,
    "slice": lambda value, start=0, end=None: value[start:end],
    "print": lambda *values: "".join(shown(value) for value in values),
    "println": lambda *values: " ".join(shown(value) for value in values) + "\n",
    "printf": _printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, other: first != other,
    "lt": lambda first, other: first < other,
    "le": lambda first, other: first <= other,
    "gt": lambda first, other: first > other,
    "ge": lambda first, other: first >= other,
    "and": lambda *values: next((value for value in values if not truth(value)), values[-1]),
    "or": lambda *values: next((value for value in values if truth(value)), values[-1]),
    "not": lambda value: not truth(value),
    "pad": lambda text, before, after: " " * before + text + " " * after if text else text,
    "truncate": lambda text, length: text[:length],
}
