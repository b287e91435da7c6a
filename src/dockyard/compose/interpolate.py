"""Variables in values: ``$V ${V} ${V:-w} ${V-w} ${V:?e} ${V?e} ${V:+w} ${V+w}``, nested, ``$$`` for a dollar sign.

Pure. Keys are never touched (compose-spec, "Interpolation"). Old files (no version key) know only ``$V`` and ``${V}``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from dockyard.compose.document import Map, Seq, Tagged, place
from dockyard.compose.errors import BAD_TEMPLATE, MISSING_VARIABLE

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
MAX_NESTING = 16


class Malformed(Exception):
    """The text is no valid template."""


class Required(Exception):
    def __init__(self, name: str, message: str) -> None:
        super().__init__(name)
        self.name, self.message = name, message


def substitute(
    text: str, variables: Mapping[str, str], missing: Callable[[str], None] = lambda _: None, depth: int = 0
) -> str:
    """Raises Malformed and Required. ``missing`` hears of every unset variable without a default."""
    if "$" not in text:
        return text
    if depth > MAX_NESTING:
        raise Malformed
    out: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        out.append(text[position:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            out.append("$")
            position = dollar + 2
        elif following == "{":
            end = _closing(text, dollar + 2)
            out.append(_braced(text[dollar + 2 : end], variables, missing, depth))
            position = end + 1
        elif match := _NAME.match(text, dollar + 1):
            out.append(_lookup(match[0], variables, missing))
            position = match.end()
        else:  # no variable: a dollar sign as it stands, as in compose-go
            out.append("$")
            position = dollar + 1
    out.append(text[position:])
    return "".join(out)


def _lookup(name: str, variables: Mapping[str, str], missing: Callable[[str], None]) -> str:
    if name not in variables:
        missing(name)
    return variables.get(name, "")


def _closing(text: str, start: int) -> int:
    level = 1
    position = start
    while position < len(text):
        if text.startswith("${", position):
            level += 1
            position += 2
            continue
        if text[position] == "}":
            level -= 1
            if level == 0:
                return position
        position += 1
    raise Malformed


def _braced(body: str, variables: Mapping[str, str], missing: Callable[[str], None], depth: int) -> str:
    match = _NAME.match(body)
    if not match:
        raise Malformed
    name, rest = match[0], body[match.end() :]
    if not rest:
        return _lookup(name, variables, missing)
    colon = rest.startswith(":")
    operator, word = rest[colon : colon + 1], rest[colon + 1 :]
    value = variables.get(name)
    present = bool(value) if colon else value is not None

    def expanded() -> str:
        return substitute(word, variables, missing, depth + 1)

    match operator:
        case "-":
            return value or "" if present else expanded()
        case "+":
            return expanded() if present else ""
        case "?":
            if not present:
                raise Required(name, expanded())
            return value or ""
    raise Malformed


def interpolate(tree: Any, variables: Mapping[str, str], file: str, missing: Callable[[str], None]) -> Any:
    """The tree with every string value substituted. Raises InvalidParameter with file, line and path."""

    def walk(node: Any, path: str, holder: Any, key: str | None) -> Any:
        if isinstance(node, Map):
            made = Map(
                {name: walk(value, f"{path}.{name}" if path else name, node, name) for name, value in node.items()}
            )
            made.line, made.tag, made.lines = node.line, node.tag, node.lines
            return made
        if isinstance(node, Seq):
            items = Seq(walk(value, f"{path}[{index}]", node, None) for index, value in enumerate(node))
            items.line, items.tag = node.line, node.tag
            return items
        if isinstance(node, Tagged):
            return Tagged(node.tag, walk(node.value, path, holder, key))
        if not isinstance(node, str) or "$" not in node:
            return node
        where = place(file, holder, key)
        try:
            return substitute(node, variables, missing)
        except Malformed:
            raise BAD_TEMPLATE(where=where, path=path, text=node) from None
        except Required as lacking:
            raise MISSING_VARIABLE(where=where, path=path, name=lacking.name, message=lacking.message) from None

    return walk(tree, "", None, None)


def parse_raw_env(text: str) -> dict[str, str | None]:
    """An env file of ``format: raw``: what stands behind the equals sign is the value, quotes and dollars and all."""
    rows = (line.partition("=") for line in text.replace("\r\n", "\n").split("\n"))
    return {name.strip(): value for name, equals, value in rows if equals and not name.lstrip().startswith("#")}


_ENV_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_.][A-Za-z0-9_.-]*)\s*(=|:\s)?(.*)", re.DOTALL)


def parse_env(text: str, lookup: Mapping[str, str]) -> dict[str, str | None]:
    """A ``.env`` file: quotes, comments, multi-line values in quotes, variables outside single quotes.

    A name alone takes its value from ``lookup`` (None if it has none). Raises ValueError with the line's number.
    """
    values: dict[str, str | None] = {}
    lines = text.replace("\r\n", "\n").split("\n")
    index = 0
    while index < len(lines):
        line, number = lines[index], index + 1
        index += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ENV_LINE.fullmatch(line)
        if not match:
            raise ValueError(f"line {number}: unexpected character in variable name: {line.strip()[:40]!r}")
        name, equals, rest = match.groups()
        if not equals:
            values[name] = lookup.get(name)
            continue
        rest = rest.lstrip()
        if rest[:1] in {'"', "'"}:
            quote = rest[0]
            while not _closed(rest, quote):
                if index >= len(lines):
                    raise ValueError(f"line {number}: unterminated quoted value")
                rest += "\n" + lines[index]
                index += 1
            values[name] = _unquoted(rest, quote, lookup, values)
        else:
            plain = re.split(r"(?:^|\s)#", rest, maxsplit=1)[0].strip()
            values[name] = substitute(plain, _known(lookup, values))
    return values


def _known(lookup: Mapping[str, str], values: Mapping[str, str | None]) -> dict[str, str]:
    return {**{name: value for name, value in values.items() if value is not None}, **lookup}


def _closed(text: str, quote: str) -> bool:
    return bool(re.match(rf"{quote}(?:\\.|[^{quote}\\])*{quote}", text, re.DOTALL))


def _unquoted(text: str, quote: str, lookup: Mapping[str, str], values: Mapping[str, str | None]) -> str:
    match = re.match(rf"{quote}((?:\\.|[^{quote}\\])*){quote}", text, re.DOTALL)
    assert match is not None
    if quote == "'":
        return match[1]
    escapes = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$$"}
    raw = re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[0]), match[1], flags=re.DOTALL)
    return substitute(raw, _known(lookup, values))
