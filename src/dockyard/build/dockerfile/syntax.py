"""Which frontend a build file asks for (``# syntax=``), and whether it is the Dockerfile's own. Pure.

As BuildKit looks for it (frontend/dockerfile/parser/directives.go): after a ``#!`` line in leading ``# key=value`` lines, in
leading ``// key=value`` lines, or as "syntax" of a JSON document.
"""

from __future__ import annotations

import json
import re

__all__ = ["asked_frontend", "is_dockerfiles"]

OWN = ("docker/dockerfile", "docker/dockerfile-upstream")
"""Also at the end of another name: mirrors keep them."""
_DIRECTIVE = {mark: re.compile(rf"^\s*{mark}\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$") for mark in ("#", "//")}
MAX_HEAD = 64 << 10


def asked_frontend(text: bytes) -> tuple[str, int]:
    """(reference, line from 1), "" and 0 where none is asked for."""
    head = text[:MAX_HEAD].decode("utf-8", "replace").removeprefix("\ufeff")
    lines = head.split("\n")
    first = 1 if lines[0].startswith("#!") else 0
    for pattern in _DIRECTIVE.values():
        for number, line in enumerate(lines[first:], first + 1):
            match = pattern.match(line)
            if match is None:
                break
            if match[1].lower() == "syntax":
                return match[2].split()[0], number
    if head.lstrip().startswith("{"):
        try:
            document = json.loads(text)
        except ValueError:
            return "", 0
        if isinstance(document, dict) and isinstance(document.get("syntax"), str) and document["syntax"].split():
            return document["syntax"].split()[0], 1
    return "", 0


def is_dockerfiles(reference: str) -> bool:
    """Docker's own frontend, in whatever version and from whatever mirror: its language is spoken here."""
    name = reference.partition("@")[0]
    head, slash, leaf = name.rpartition("/")
    name = f"{head}{slash}{leaf.partition(':')[0]}"
    return any(name == own or name.endswith(f"/{own}") for own in OWN)
