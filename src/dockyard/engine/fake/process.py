"""What a simulated command does, decided from its words alone.

``true``, ``false``, ``echo``, ``printf``, ``exit N`` in a shell: ends at once. ``sleep N``: ends by itself after N
seconds. ``cat``: gives back its input until end of file. Everything else is a service that runs until it is signalled.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Literal

from dockyard.errors import Code, InvalidParameter

NOT_FOUND = Code(
    "DY-FAKE-001", InvalidParameter,
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    'unable to start container process: exec: "{name}": executable file not found in $PATH: unknown',
)  # fmt: skip

_KNOWN_MISSING = re.compile(r"(.*/)?(does-?not-?exist|nosuch\w*|notfound|doesnotexist)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Script:
    """``kind``: done (ends with ``code`` after ``seconds``), echo (copies stdin), service (until signalled)."""

    kind: Literal["done", "echo", "service"]
    code: int = 0
    seconds: float = 0.0
    output: bytes = b""


def script_of(argv: list[str]) -> Script:
    """Raises the runtime's error for a command that a test names as missing."""
    name, *rest = argv
    if _KNOWN_MISSING.match(name):
        raise NOT_FOUND(name=name)
    match name.rsplit("/", 1)[-1]:
        case "true":
            return Script("done")
        case "false":
            return Script("done", 1)
        case "echo":
            return Script("done", output=" ".join(rest).encode() + b"\n")
        case "sleep":
            return Script("done", seconds=_number(rest))
        case "cat" if not rest:
            return Script("echo")
        case "sh" | "bash" | "ash" if rest[:1] == ["-c"]:
            return _shell(rest[1] if len(rest) > 1 else "")
        case "hello":
            return Script("done", output=b"\nHello from Docker!\n")
    return Script("service")


def _number(words: list[str]) -> float:
    return float(words[0]) if words and re.fullmatch(r"\d+(\.\d+)?", words[0]) else 3600.0


def _shell(text: str) -> Script:
    """A list of simple commands joined by ``;`` or ``&&``: output and time add up, the last status counts."""
    output, seconds, code = b"", 0.0, 0
    for part in re.split(r";|&&|\n", text):
        try:
            words = shlex.split(part)
        except ValueError:
            return Script("done", 2, output=b"sh: syntax error\n")
        if not words:
            continue
        if words[0] == "exit":
            return Script("done", int(_number([*words[1:], "0"])) & 255, seconds, output)
        step = script_of(words)
        output += step.output
        if step.kind != "done":
            return Script(step.kind, output=output)
        seconds, code = seconds + step.seconds, step.code
    return Script("done", code, seconds, output)
