r"""Dockerfile text to a list of nodes: directives, continuation lines, comments, flags, JSON forms and heredocs.

No meaning is given here: ``instructions.py`` turns a node into a typed instruction. Limits guard against hostile input
(a Dockerfile of 100 MB is refused before it is split).

    # escape=`            directives, only at the top
    RUN --mount=... a \   a logical line: instruction, flags, the rest
        && b
    COPY <<EOF /x         heredoc bodies follow the logical line, in order
    ...
    EOF
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from .words import ExpandError, expand

__all__ = ["INSTRUCTIONS", "Dockerfile", "Heredoc", "Node", "SyntaxProblem", "parse"]

MAX_BYTES = 16 << 20
MAX_NODES = 100_000

INSTRUCTIONS = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER",
    "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip

_BLANK = re.compile(r"[\t\v\f\r ]+")
_DIRECTIVE = re.compile(r"^#[ \t]*([a-zA-Z][a-zA-Z0-9]*)[ \t]*=[ \t]*(.+?)[ \t\r]*$")
_HEREDOC = re.compile(r"^(\d*)<<(-?)([^<]*)$")
_HEREDOC_HOSTS = frozenset({"add", "copy", "run"})


class SyntaxProblem(ValueError):
    """Bad Dockerfile text. ``line`` and ``column`` count from 1; ``word`` is what the column points at."""

    def __init__(self, text: str, line: int = 0, word: str = "") -> None:
        super().__init__(text)
        self.text, self.line, self.word = text, line, word


@dataclass(frozen=True, slots=True)
class Heredoc:
    name: str
    content: str
    expand: bool  # False when the word was quoted
    chomp: bool  # <<- : leading tabs are not part of the content
    fd: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """One logical line. ``args`` follows the reference frontend's tree: ENV gives name, value, separator triples."""

    name: str
    args: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    is_json: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    child: Node | None = None
    line: int = 0
    end_line: int = 0
    original: str = ""
    comments: tuple[str, ...] = ()

    def dump(self) -> str:
        """The S-expression of the public golden files."""
        parts = [self.name]
        if self.flags:
            parts.append("[" + " ".join(_quote(f) for f in self.flags) + "]")
        parts += [self.child.dump()] if self.child else [_quote(a) for a in self.args]
        return "(" + " ".join(parts) + ")"


@dataclass(frozen=True, slots=True)
class Dockerfile:
    nodes: tuple[Node, ...]
    escape: str = "\\"
    directives: dict[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    name: str = "Dockerfile"
    empty_continuations: tuple[int, ...] = ()


def parse(text: str | bytes, name: str = "Dockerfile") -> Dockerfile:
    """Raises SyntaxProblem."""
    if len(text) > MAX_BYTES:
        raise SyntaxProblem(f"the file is larger than {MAX_BYTES >> 20} MiB")
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    lines = text.removeprefix("\ufeff").split("\n")
    directives, escape = _directives(lines)
    reader = _Reader(lines, escape)
    nodes = tuple(reader.nodes())
    if not nodes:
        raise SyntaxProblem("file with no instructions")
    return Dockerfile(nodes, escape, directives, tuple(lines), name, tuple(reader.empty_continuations))


def _directives(lines: list[str]) -> tuple[dict[str, str], str]:
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _DIRECTIVE.match(line)
        if not match or match[1].lower() not in ("syntax", "escape", "check"):
            break
        key = match[1].lower()
        if key in found:
            raise SyntaxProblem(f"only one {key} parser directive can be used", number)
        found[key] = match[2]
    escape = found.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise SyntaxProblem(f"invalid escape token {escape!r} does not match ` or \\", 1)
    return found, escape


class _Reader:
    def __init__(self, lines: list[str], escape: str) -> None:
        self.lines, self.escape, self.at = lines, escape, 0
        token = re.escape(escape)
        # The token continues a line only at its end, blanks apart, and not when it is itself escaped.
        self.continues = re.compile(rf"(^|[^{token}]){token}[ \t]*$")
        self.empty_continuations: list[int] = []

    def nodes(self) -> Iterator[Node]:
        comments: list[str] = []
        count = 0
        while self.at < len(self.lines):
            stripped = self.lines[self.at].strip()
            if not stripped:
                self.at += 1
                comments.clear()
                continue
            if stripped.startswith("#"):
                comments.append(stripped[1:].strip())
                self.at += 1
                continue
            start = self.at
            line = self.logical_line()
            if not line.strip():
                continue
            count += 1
            if count > MAX_NODES:
                raise SyntaxProblem(f"more than {MAX_NODES} instructions", start + 1)
            node = parse_line(line, self.escape, start + 1)
            heredocs = self.heredoc_bodies(node, line)
            original = "\n".join(self.lines[start : self.at]) if heredocs else line.strip()
            yield replace(
                node, line=start + 1, end_line=self.at, original=original, heredocs=heredocs, comments=tuple(comments)
            )
            comments.clear()

    def logical_line(self) -> str:
        pieces: list[str] = []
        first = True
        warned = False
        while self.at < len(self.lines):
            raw = self.lines[self.at].rstrip("\r")
            self.at += 1
            if not first:
                bare = raw.strip()
                if bare.startswith("#"):
                    continue
                if not bare:
                    if not warned and self.at < len(self.lines):
                        self.empty_continuations.append(self.at)
                        warned = True
                    continue
            text = raw.lstrip() if first else raw
            first = False
            cut = self.continues.sub(r"\1", text)
            pieces.append(cut)
            if cut == text:
                break
        return "".join(pieces)

    def heredoc_bodies(self, node: Node, line: str) -> tuple[Heredoc, ...]:
        owner = node.child or node
        if "<<" not in line or owner.name not in _HEREDOC_HOSTS or owner.is_json:
            return ()
        return tuple(self.body(found) for found in _heredocs_of(line, self.escape))

    def body(self, found: Heredoc) -> Heredoc:
        start = self.at
        content: list[str] = []
        while self.at < len(self.lines):
            raw = self.lines[self.at]
            self.at += 1
            bare = raw.rstrip("\r")
            if (bare.lstrip("\t") if found.chomp else bare) == found.name:
                return replace(found, content="".join(content))
            content.append(raw + "\n")
        raise SyntaxProblem(f"unterminated heredoc {found.name!r}", start, found.name)


def _heredocs_of(line: str, escape: str) -> Iterator[Heredoc]:
    try:
        words = expand(line, {}, escape, keep_quotes=True, keep_escapes=True, keep_unset=True).words
    except ExpandError:
        return  # "<<" inside unbalanced quotes is left to the shell that will run the line
    for word in words:
        match = _HEREDOC.match(word)
        if not match or not match[3]:
            continue
        plain = expand(match[3], {}, escape, keep_unset=True).text
        yield Heredoc(plain, "", plain == match[3], match[2] == "-", int(match[1] or 0))


def parse_line(line: str, escape: str, number: int) -> Node:
    """One logical line to a node; for ONBUILD the rest is a node of its own."""
    name, rest = _split_once(line.strip())
    name = name.lower()
    if name.upper() not in INSTRUCTIONS:
        raise SyntaxProblem(f"unknown instruction: {name.upper()}", number, name)
    flags, rest = _flags(rest)
    rest = rest.strip()
    if name == "onbuild":
        if not rest:
            raise SyntaxProblem("ONBUILD requires at least one argument", number, name)
        child = parse_line(rest, escape, number)
        return Node(name, (), flags, child=replace(child, line=number, original=rest))
    try:
        args, is_json = _SPLITTERS[name](rest, escape)
    except SyntaxProblem as problem:
        raise SyntaxProblem(problem.text.replace("{name}", name.upper()), number, name) from None
    return Node(name, args, flags, is_json)


def _split_once(text: str) -> tuple[str, str]:
    parts = _BLANK.split(text, maxsplit=1)
    return parts[0], parts[1] if len(parts) == 2 else ""


def _flags(rest: str) -> tuple[tuple[str, ...], str]:
    """Leading ``--words``; quotes group and vanish, ``--`` alone ends them."""
    flags: list[str] = []
    pos = 0
    while True:
        while pos < len(rest) and rest[pos].isspace():
            pos += 1
        if not rest.startswith("--", pos):
            return tuple(flags), rest[pos:]
        word, pos = _flag_word(rest, pos)
        if word == "--":
            return tuple(flags), rest[pos:]
        flags.append(word)


def _flag_word(rest: str, pos: int) -> tuple[str, int]:
    out: list[str] = []
    quote = ""
    while pos < len(rest):
        char = rest[pos]
        pos += 1
        if quote:
            if char == quote:
                quote = ""
                continue
        elif char.isspace():
            break
        elif char in "'\"":
            quote = char
            continue
        if char == "\\" and pos < len(rest):
            char = rest[pos]
            pos += 1
        out.append(char)
    return "".join(out), pos


_Args = tuple[tuple[str, ...], bool]


def _blank_separated(rest: str, _escape: str) -> _Args:
    return tuple(w for w in _BLANK.split(rest) if w), False


def _whole(rest: str, _escape: str) -> _Args:
    return ((rest,) if rest else ()), False


def _json_list(rest: str) -> tuple[str, ...] | None:
    """The JSON form, or None when it is none. A list that holds more than strings is an error (not a shell line)."""
    if not rest.startswith("["):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(rest)
    except ValueError:
        return None
    if not all(isinstance(v, str) for v in value):
        raise SyntaxProblem("when using JSON array syntax, arrays must be comprised of strings only")
    return tuple(value)


def _json_or_whole(rest: str, escape: str) -> _Args:
    found = _json_list(rest)
    return (found, True) if found is not None else _whole(rest, escape)


def _json_or_blank_separated(rest: str, escape: str) -> _Args:
    found = _json_list(rest)
    return (found, True) if found is not None else _blank_separated(rest, escape)


def _quoted_words(rest: str, escape: str) -> list[str]:
    """Blank separated, quotes and escapes kept in the words (they are resolved with the environment, later)."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    pos = 0
    while pos < len(rest):
        char = rest[pos]
        pos += 1
        if not quote and char.isspace():
            if word:
                words.append("".join(word))
                word.clear()
            continue
        if char == escape:
            if pos == len(rest):
                break  # an escape token at the very end is dropped
            char += rest[pos]
            pos += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        word.append(char)
    if word:
        words.append("".join(word))
    return words


def _name_values(rest: str, escape: str) -> _Args:
    words = _quoted_words(rest, escape)
    if not words:
        return (), False
    if "=" not in words[0]:
        parts = _BLANK.split(rest, maxsplit=1)
        if len(parts) < 2:
            raise SyntaxProblem("{name} must have two arguments")
        return (parts[0], parts[1], ""), False
    args: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise SyntaxProblem(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        args += [key, value, "="]
    return tuple(args), False


def _healthcheck(rest: str, escape: str) -> _Args:
    if not rest:
        return (), False
    kind, command = _split_once(rest)
    args, is_json = _json_or_whole(command.strip(), escape)
    return (kind, *args), is_json


def _arg_words(rest: str, escape: str) -> _Args:
    return tuple(_quoted_words(rest, escape)), False


_SPLITTERS: dict[str, Callable[[str, str], _Args]] = {
    "add": _json_or_blank_separated, "arg": _arg_words, "cmd": _json_or_whole, "copy": _json_or_blank_separated,
    "entrypoint": _json_or_whole, "env": _name_values, "expose": _blank_separated, "from": _blank_separated,
    "healthcheck": _healthcheck, "label": _name_values, "maintainer": _whole, "run": _json_or_whole,
    "shell": _json_or_whole, "stopsignal": _whole, "user": _whole, "volume": _json_or_blank_separated,
    "workdir": _whole,
}  # fmt: skip


def _quote(text: str) -> str:
    """Go's %q for the characters that occur in Dockerfiles."""
    out = ['"']
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f"}
    out.extend(short.get(char) or (f"\\x{ord(char):02x}" if ord(char) < 32 else char) for char in text)
    out.append('"')
    return "".join(out)
