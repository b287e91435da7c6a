"""Path patterns: .dockerignore, COPY --exclude, and wildcards of COPY sources.

Ignore patterns are those of the moby pattern matcher: ``*`` and ``?`` stay inside one path component, ``**`` crosses
them, ``!`` takes a path back, the last pattern that matches wins, and a pattern that matches a directory covers all
below it. Source wildcards are Go's filepath.Match.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

__all__ = ["Patterns", "clean", "has_wildcard", "match_regex", "read_ignore_file"]

_ESCAPED = frozenset(".$()|+{}^")


def clean(path: str) -> str:
    """Go's filepath.Clean without a leading slash; "" and "/" become "."."""
    path = posixpath.normpath("/" + path).lstrip("/")
    return path or "."


def read_ignore_file(text: str) -> list[str]:
    patterns: list[str] = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines()):
        if line.startswith("#") and (number or line):
            continue
        line = line.strip()
        negated = line.startswith("!")
        line = line[1:].strip() if negated else line
        if line:
            line = posixpath.normpath(line)
            if len(line) > 1 and line.startswith("/"):
                line = line.lstrip("/")
            patterns.append("!" + line if negated else line)
        elif negated:
            raise ValueError('illegal exclusion pattern: "!"')
    return patterns


def ignore_regex(pattern: str) -> str:
    out: list[str] = []
    pos = 0
    while pos < len(pattern):
        char = pattern[pos]
        pos += 1
        if char == "*" and pattern.startswith("*", pos):
            pos += 1
            if pattern.startswith("/", pos):
                pos += 1
            out.append(".*" if pos >= len(pattern) else "(.*/)?")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "\\" and pos < len(pattern):
            out.append(re.escape(pattern[pos]))
            pos += 1
        elif char == "[":
            body, pos = _bracket(pattern, pos)
            out.append(body)
        else:
            out.append("\\" + char if char in _ESCAPED or char == "\\" else char)
    return "".join(out)


def _bracket(pattern: str, pos: int) -> tuple[str, int]:
    end = pos
    while end < len(pattern) and (pattern[end] != "]" or end == pos):
        end += 2 if pattern[end] == "\\" else 1
    if end >= len(pattern):
        raise ValueError(f"syntax error in pattern {pattern!r}")
    body = pattern[pos:end]
    if body.startswith("!"):
        raise ValueError(f"syntax error in pattern {pattern!r}: use [^...]")
    re.compile(f"[{body}]")
    return f"[{body}]", end + 1


def match_regex(pattern: str) -> re.Pattern[str]:
    """filepath.Match for a whole path: no ``**``, components are never crossed. Raises ValueError for a bad pattern."""
    return re.compile(ignore_regex(re.sub(r"\*\*+", "*", pattern)), re.DOTALL)


def has_wildcard(path: str) -> bool:
    return any(c in path for c in "*?[")


class Patterns:
    """An ordered list of patterns; answers for one path are kept per directory, so a tree costs one match a path."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        for raw in patterns:
            raw = raw.strip()
            if not raw:
                continue
            negated = raw.startswith("!")
            body = posixpath.normpath(raw[1:] if negated else raw)
            if body == "." and not negated and len(raw) != 1:
                continue
            body = body.lstrip("/") if len(body) > 1 else body
            try:
                self._rules.append((re.compile(ignore_regex(body), re.DOTALL), negated))
            except re.error as error:
                raise ValueError(f"syntax error in pattern {raw!r}: {error}") from None
        self.has_negation = any(negated for _, negated in self._rules)
        self._dirs: dict[str, tuple[bool, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._rules)

    def _hits(self, path: str) -> tuple[bool, ...]:
        parent = posixpath.dirname(path)
        above = self._dir_hits(parent) if parent else (False,) * len(self._rules)
        return tuple(up or rule[0].fullmatch(path) is not None for up, rule in zip(above, self._rules, strict=True))

    def _dir_hits(self, path: str) -> tuple[bool, ...]:
        found = self._dirs.get(path)
        if found is None:
            found = self._dirs[path] = self._hits(path)
        return found

    def match(self, path: str) -> bool:
        """Is ``path`` (clean, relative) matched, itself or through a parent directory?"""
        if not self._rules:
            return False
        matched = False
        for hit, (_, negated) in zip(self._hits(path), self._rules, strict=True):
            if hit:
                matched = not negated
        return matched
