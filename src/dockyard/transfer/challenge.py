"""Challenges and scopes of registry authentication (RFC 7235 section 4.1, distribution docs spec/auth), pure.

::

    WWW-Authenticate: Bearer realm="https://auth/token",service="registry",scope="repository:a/b:pull,push"
    WWW-Authenticate: Basic realm="Registry Realm"
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*({_TOKEN})(?:\s+|$)")
_PARAMETER = re.compile(rf"\s*,?\s*({_TOKEN})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|({_TOKEN}))")
_SEPARATOR = re.compile(r"\s*,\s*")


@dataclass(frozen=True, slots=True)
class Challenge:
    scheme: str
    """Lower case: ``bearer`` or ``basic``."""
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of the given header values; what cannot be read ends the value it stands in."""
    return [challenge for header in headers for challenge in _parse(header)]


def _parse(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    at = 0
    while match := _SCHEME.match(header, at):
        at = match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, at):
            name, quoted, plain = parameter.groups()
            parameters[name.lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            at = parameter.end()
        found.append(Challenge(match[1].lower(), parameters))
        if separator := _SEPARATOR.match(header, at):
            at = separator.end()
    return found


def repository_scope(path: str, *actions: str) -> str:
    return f"repository:{path}:{','.join(actions)}"


def missing_actions(asked: str, granted: Iterable[str]) -> list[str]:
    """Actions of scope ``asked`` that are not among the ``granted`` actions."""
    have = set(granted)
    return [] if "*" in have else [a for a in asked.rpartition(":")[2].split(",") if a not in have]
