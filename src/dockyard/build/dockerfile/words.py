r"""Words: quotes, escapes and ``$variables`` of a Dockerfile, as the lexer of the reference frontend does it.

Quotes group and vanish, the escape token (``\`` or `` ` ``) takes the next character as it is, and an unquoted variable
may add word breaks of its own. Supported: ``$v ${v} ${v:-w} ${v-w} ${v:+w} ${v+w} ${v:?w} ${v?w}`` and the patterns
``${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/r} ${v//p/r}``. One call sees one snapshot of the environment.

Source: Dockerfile reference, "Environment replacement"; the golden cases of tests/unit/test_build_words.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ExpandError", "Expansion", "expand", "expand_words", "glob_regex"]

_BLANKS = " \t\n\r\v\f"
_SPECIAL = "@*#?-$!0"


class ExpandError(ValueError):
    """The word cannot be expanded; ``str()`` says why."""


@dataclass(slots=True)
class Expansion:
    """What a word became, and which variables it asked for."""

    text: str
    words: list[str]
    used: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)


def expand(
    word: str,
    env: Mapping[str, str],
    escape: str = "\\",
    *,
    keep_quotes: bool = False,
    keep_escapes: bool = False,
    keep_unset: bool = False,
) -> Expansion:
    """Expand ``word`` once. Raises ExpandError for unbalanced quotes or a bad substitution."""
    lexer = _Lexer(word, env, escape, keep_quotes, keep_escapes, keep_unset)
    text, words = lexer.until("", keep_escapes)
    return Expansion(text, words, lexer.used, lexer.missing)


def expand_words(word: str, env: Mapping[str, str], escape: str = "\\") -> list[str]:
    return expand(word, env, escape).words


class _Words:
    """Word breaks are made by unquoted blanks only."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.word: list[str] = []

    def split(self, text: str) -> None:
        for char in text:
            if char in _BLANKS:
                self.flush()
            else:
                self.word.append(char)

    def raw(self, text: str) -> None:
        self.word.append(text)

    def flush(self) -> None:
        if word := "".join(self.word):
            self.done.append(word)
        self.word.clear()


class _Lexer:
    def __init__(
        self, text: str, env: Mapping[str, str], escape: str, keep_quotes: bool, keep_escapes: bool, keep_unset: bool
    ) -> None:
        self.text, self.pos, self.env, self.escape = text, 0, env, escape
        self.keep_quotes, self.keep_escapes, self.keep_unset = keep_quotes, keep_escapes, keep_unset
        self.used: set[str] = set()
        self.missing: set[str] = set()

    def peek(self) -> str:
        return self.text[self.pos] if self.pos < len(self.text) else ""

    def next(self) -> str:
        char = self.peek()
        self.pos += 1
        return char

    def until(self, stop: str, keep_escapes: bool) -> tuple[str, list[str]]:
        """Read up to ``stop`` ("" = the end of the text); nested variables may contain the stop character."""
        out: list[str] = []
        words = _Words()
        while char := self.peek():
            if stop and char == stop:
                self.next()
                words.flush()
                return "".join(out), words.done
            if char == "$":
                piece = self.dollar()
                words.split(piece)
            elif char in "'\"":
                piece = self.single() if char == "'" else self.double()
                words.raw(piece)
            elif char == self.escape:
                self.next()
                piece = (char if keep_escapes else "") + self.next()
                words.raw(piece)
            else:
                piece = self.next()
                words.split(piece)
            out.append(piece)
        if stop:
            raise ExpandError("syntax error: missing '}'" if stop == "}" else f"syntax error: missing {stop!r}")
        words.flush()
        return "".join(out), words.done

    def single(self) -> str:
        self.next()
        end = self.text.find("'", self.pos)
        if end < 0:
            raise ExpandError("unexpected end of statement while looking for matching single-quote")
        body = self.text[self.pos : end]
        self.pos = end + 1
        return f"'{body}'" if self.keep_quotes else body

    def double(self) -> str:
        self.next()
        out: list[str] = ['"'] if self.keep_quotes else []
        while char := self.peek():
            if char == '"':
                self.next()
                if self.keep_quotes:
                    out.append('"')
                return "".join(out)
            if char == "$":
                out.append(self.dollar())
                continue
            self.next()
            if char == self.escape:
                following = self.peek()
                if not following:
                    break
                if following in ('"', "$", self.escape):
                    # Only these three can be escaped inside double quotes; elsewhere the token stays (POSIX 2.2.3).
                    out.append((char if self.keep_escapes else "") + self.next())
                    continue
            out.append(char)
        raise ExpandError("unexpected end of statement while looking for matching double-quote")

    def name(self) -> str:
        char = self.peek()
        if char and ((char.isascii() and char.isalpha()) or char == "_"):
            match = re.compile(r"[A-Za-z0-9_]+").match(self.text, self.pos)
        elif char.isascii() and char.isdigit():
            match = re.compile(r"[0-9]+").match(self.text, self.pos)
        elif char and char in _SPECIAL:
            self.next()
            return char
        else:
            return ""
        assert match is not None
        self.pos = match.end()
        return match.group()

    def lookup(self, name: str) -> str | None:
        value = self.env.get(name)
        (self.missing if value is None else self.used).add(name)
        return value

    def dollar(self) -> str:
        self.next()
        if self.peek() != "{":
            name = self.name()
            if not name:
                return "$"
            value = self.lookup(name)
            return "$" + name if value is None and self.keep_unset else value or ""
        self.next()
        if not self.peek():
            raise ExpandError("syntax error: missing '}'")
        if self.peek() in "{}:":
            raise ExpandError("syntax error: bad substitution")
        return self.braced(self.name())

    def braced(self, name: str) -> str:
        operator = self.next()
        if not operator:
            raise ExpandError("syntax error: missing '}'")
        if operator == "}":
            value = self.lookup(name)
            return "${" + name + "}" if value is None and self.keep_unset else value or ""
        if operator == "/":
            return self.replace(name)
        null_is_unset = operator == ":"
        if null_is_unset:
            operator = self.next()
            if operator not in ("-", "+", "?"):
                raise ExpandError(f"unsupported modifier (:{operator}) in substitution")
        if operator not in ("-", "+", "?", "#", "%"):
            raise ExpandError(f"unsupported modifier ({operator}) in substitution")
        word, _ = self.until("}", operator in "#%")
        value = self.lookup(name)
        if operator in "#%":
            return _trim(value or "", word, operator)
        unset = value is None or (null_is_unset and not value)
        if operator == "-":
            return word if unset else value or ""
        if operator == "+":
            return "" if unset else word
        if unset:
            raise ExpandError(f"{name}: {word or 'is not allowed to be ' + ('empty' if value == '' else 'unset')}")
        return value or ""

    def replace(self, name: str) -> str:
        every = self.peek() == "/"
        if every:
            self.next()
        pattern, _ = self.until("/", True)
        replacement, _ = self.until("}", True)
        value = self.lookup(name) or ""
        regex = re.compile(glob_regex(pattern, greedy=True, escape=self.escape), re.DOTALL)
        return regex.sub(lambda _m: replacement, value, count=0 if every else 1) if pattern else value


def glob_regex(pattern: str, *, greedy: bool, escape: str = "\\") -> str:
    """A shell pattern (``*``, ``?``, escape) as a regular expression source."""
    out: list[str] = []
    chars = iter(pattern)
    for char in chars:
        if char == "*":
            out.append(".*" if greedy else ".*?")
        elif char == "?":
            out.append(".")
        elif char == escape:
            out.append(re.escape(next(chars, escape)))
        else:
            out.append(re.escape(char))
    return "".join(out)


def _trim(value: str, word: str, operator: str) -> str:
    """``#``/``##`` cut the shortest/longest match from the front, ``%``/``%%`` from the back."""
    greedy = word.startswith(operator)
    pattern = re.compile(glob_regex(word[1:] if greedy else word, greedy=True), re.DOTALL)
    ends = range(len(value) + 1)
    if operator == "#":
        for end in reversed(ends) if greedy else ends:
            if pattern.fullmatch(value, 0, end):
                return value[end:]
        return value
    for start in ends if greedy else reversed(ends):
        if pattern.fullmatch(value, start):
            return value[:start]
    return value
