"""Flags as docker's CLI reads them (Go's pflag), declared in the words of their help.

A declaration is the help text itself, one flag a line, two spaces before its explanation::

    -a, --all                 Show all containers
    -f, --filter KEY=VALUE... Only those that match   (... : may be repeated)
    -n, --last N              Show the last N         (N   : a number)

Not argparse: pflag's ``--rm=false``, ``-itv /a:/b`` and "options end at the image" cannot be said in it, and it costs
10 ms of the 120 that ``dockyard ps`` may take (ADR 100).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

ALSO = {"net": "network", "net-alias": "network-alias", "dns-opt": "dns-option", "time": "timeout"}
"""Older names that docker still takes without showing them in help."""
_TRUE = frozenset({"1", "t", "true", "T", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "false", "F", "FALSE", "False"})


class UsageError(Exception):
    """The command line cannot be read. ``str()`` is the sentence for the user."""


class Refusal(UsageError):
    """What was asked cannot be done as asked; no matter of how flags are written. Its exit code is 1."""


class Flag(NamedTuple):
    name: str
    short: str
    value: str
    """What stands for the value in the help; "" is a switch."""
    many: bool
    help: str

    @property
    def number(self) -> bool:
        return self.value == "N"


class Options:
    """What was given on a command line."""

    def __init__(self, given: dict[str, list[str]], words: list[str]) -> None:
        self._given = given
        self.words = words
        """Positional arguments."""

    def given(self, name: str) -> bool:
        return name in self._given

    def on(self, name: str, default: bool = False) -> bool:
        values = self._given.get(name)
        return values[-1] in _TRUE if values else default

    def text(self, name: str, default: str = "") -> str:
        values = self._given.get(name)
        return values[-1] if values else default

    def all(self, name: str) -> list[str]:
        return list(self._given.get(name, ()))

    def number(self, name: str, default: int = 0) -> int:
        values = self._given.get(name)
        return int(values[-1]) if values else default


def declared(text: str) -> list[Flag]:
    """The flags of a declaration."""
    found = []
    for line in text.splitlines():
        if not (line := line.strip()):
            continue
        head, _, told = line.partition("  ")
        words = head.split()
        short = words.pop(0)[1:2] if not words[0].startswith("--") else ""
        name = words.pop(0)[2:]
        value = words[0] if words else ""
        found.append(Flag(name, short, value.removesuffix("..."), value.endswith("..."), told.strip()))
    return found


def parse(flags: Sequence[Flag], argv: Sequence[str], *, interspersed: bool = True) -> Options:
    """Raises UsageError with pflag's wording. Without ``interspersed`` the first positional ends the flags."""
    names = {flag.name: flag for flag in flags}
    shorts = {flag.short: flag for flag in flags if flag.short}
    given: dict[str, list[str]] = {}
    words: list[str] = []
    queue = list(argv)
    while queue:
        word = queue.pop(0)
        if word == "--":
            words += queue
            break
        if not word.startswith("-") or word == "-":
            words.append(word)
            if not interspersed:
                words += queue
                break
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            flag = names.get(name) or names.get(ALSO.get(name, ""))
            if flag is None:
                raise UsageError(f"unknown flag: --{name}{_perhaps(name, names)}")
            _take(given, flag, value if equals else None, queue, f"--{name}")
        else:
            _cluster(given, shorts, word, queue)
    return Options(given, words)


def _cluster(given: dict[str, list[str]], shorts: dict[str, Flag], word: str, queue: list[str]) -> None:
    rest = word[1:]
    while rest:
        letter, rest = rest[0], rest[1:]
        flag = shorts.get(letter)
        if flag is None:
            raise UsageError(f"unknown shorthand flag: '{letter}' in {word}")
        if not flag.value:
            value = None
            if rest.startswith("="):
                value, rest = rest[1:], ""
            _take(given, flag, value, queue, f"-{letter}")
        else:
            _take(given, flag, rest.removeprefix("=") if rest else None, queue, f"-{letter}")
            return


def _take(given: dict[str, list[str]], flag: Flag, value: str | None, queue: list[str], shown: str) -> None:
    if not flag.value:
        value = "true" if value is None else value
        if value not in _TRUE | _FALSE:
            raise UsageError(f'invalid argument "{value}" for "{shown}" flag: true or false is expected')
    elif value is None:
        if not queue:
            raise UsageError(f"flag needs an argument: {shown}")
        value = queue.pop(0)
    if flag.number and not value.lstrip("-").isdigit():
        raise UsageError(f'invalid argument "{value}" for "{shown}" flag: a number is expected')
    if flag.many:
        given.setdefault(flag.name, []).append(value)
    else:
        given[flag.name] = [value]


def nearest(word: str, known: Sequence[str] | dict[str, Flag], *, cutoff: float = 0.6) -> list[str]:
    """Known words that look like ``word``, the best first."""
    import difflib

    return difflib.get_close_matches(word, list(known), 3, cutoff)


def _perhaps(name: str, names: dict[str, Flag]) -> str:
    near = nearest(name, names)
    return f" (did you mean --{near[0]}?)" if near else ""
