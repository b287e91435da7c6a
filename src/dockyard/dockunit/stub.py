"""Stubs: small servers that stand in for the services a project's tests need. What a file says about them, and the files
of the container that plays one. Pure.

::

    "stubs": {"rates": {"port": 80, "answers": [{"path": "/eur", "json": {"usd": 1.1}, "calls": 2}]},
              "mail":  {"port": 25, "reply": "220 ready\\r\\n"},
              "cache": {"image": "redis:7"}}

An HTTP stub is a shell script behind busybox's ``nc``, so it needs an image of 2 MB, no program of ours in it, and works
on every engine. Each request is a line of ``/stub/calls``, which is how ``calls`` is checked at the end.
"""

from __future__ import annotations

import difflib
import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from dockyard.dockunit.errors import BAD_FILE

IMAGE = "busybox:latest"
CALLS = "/stub/calls"
MOST_ANSWERS, MOST_BODY, MOST_DELAY = 500, 1 << 20, 60.0
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_METHOD = re.compile(r"[A-Z]{1,16}")
_PATH = re.compile(r"/[!-~]{0,1000}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,80}")
_KEYS = frozenset({"port", "answers", "reply", "image", "env", "command"})
_ANSWER_KEYS = frozenset({"method", "path", "status", "headers", "body", "json", "delay", "calls"})


@dataclass(frozen=True, slots=True)
class Answer:
    """``path`` may end in ``*``; with a ``?`` in it the query counts too. ``delay`` in seconds. ``calls``: how often it must
    have been asked for at the end, None for any."""

    path: str
    method: str = "GET"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    delay: float = 0.0
    calls: int | None = None

    @property
    def raw(self) -> bytes:
        """The whole answer as it goes over the wire."""
        phrase = HTTPStatus(self.status).phrase if self.status in set(HTTPStatus) else "Stubbed"
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in self.headers)]
        lines += [f"Content-Length: {len(self.body)}", "Connection: close"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


@dataclass(frozen=True, slots=True)
class Stub:
    """``answers`` (HTTP) or ``reply`` (bytes for each connection) on ``port``; or a real ``image`` in its place."""

    name: str
    port: int = 80
    answers: tuple[Answer, ...] = ()
    reply: bytes | None = None
    image: str = ""
    env: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def parse_stubs(told: Any, path: str, where: str = "stubs") -> tuple[Stub, ...]:
    """Raises InvalidParameter with the place and the nearest key."""
    if told is None:
        return ()
    if not isinstance(told, Mapping):
        raise BAD_FILE(path=path, cause=f"{where} must be an object: name to stub")
    return tuple(_stub(str(name), one, path, f"{where}.{name}") for name, one in told.items())


def known(row: Mapping[str, Any], keys: frozenset[str], path: str, where: str) -> None:
    """Raises InvalidParameter for a key that is not one of ``keys``."""
    for key in row:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, 1)
            raise BAD_FILE(path=path, cause=f"{where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _stub(name: str, row: Any, path: str, where: str) -> Stub:
    if not _NAME.fullmatch(name):
        raise BAD_FILE(path=path, cause=f"{where}: a stub's name is a host name")
    if not isinstance(row, Mapping):
        raise BAD_FILE(path=path, cause=f"{where} must be an object")
    known(row, _KEYS, path, where)
    kinds = [key for key in ("answers", "reply", "image") if row.get(key) is not None]
    if len(kinds) != 1:
        raise BAD_FILE(path=path, cause=f"{where} needs one of answers, reply and image")
    port = whole(row.get("port", 80), 65535, path, f"{where}.port")
    if kinds == ["image"]:
        env = row.get("env") or {}
        words = row.get("command") or []
        if not isinstance(env, Mapping) or not isinstance(words, Sequence) or isinstance(words, str):
            raise BAD_FILE(path=path, cause=f"{where}: env is an object and command a list")
        return Stub(name, port, image=str(row["image"]), env=tuple(f"{key}={value}" for key, value in env.items()),
                    command=tuple(str(word) for word in words))  # fmt: skip
    if kinds == ["reply"]:
        return Stub(name, port, reply=str(row["reply"]).encode())
    rows = row["answers"]
    if not isinstance(rows, list) or not 0 < len(rows) <= MOST_ANSWERS:
        raise BAD_FILE(path=path, cause=f"{where}.answers must be a list of 1 to {MOST_ANSWERS} answers")
    return Stub(name, port, tuple(_answer(one, path, f"{where}.answers[{at}]") for at, one in enumerate(rows)))


def whole(value: Any, most: int, path: str, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise BAD_FILE(path=path, cause=f"{where} must be a whole number up to {most}")
    return value


def _answer(row: Any, path: str, where: str) -> Answer:
    if not isinstance(row, Mapping):
        raise BAD_FILE(path=path, cause=f"{where} must be an object")
    known(row, _ANSWER_KEYS, path, where)
    method, target = str(row.get("method", "GET")).upper(), str(row.get("path") or "")
    if not _METHOD.fullmatch(method) or not _PATH.fullmatch(target):
        raise BAD_FILE(path=path, cause=f"{where}: path must begin with / and method be a word")
    headers = row.get("headers") or {}
    if not isinstance(headers, Mapping) or not all(
        _HEADER.fullmatch(str(name)) and str(value).isprintable() for name, value in headers.items()
    ):
        raise BAD_FILE(path=path, cause=f"{where}.headers must be an object of names and printable values")
    found = [(str(name), str(value)) for name, value in headers.items()]
    if "json" in row:
        body = json.dumps(row["json"]).encode()
        found = [("Content-Type", "application/json"), *found]
    else:
        body = str(row.get("body", "")).encode()
    delay = row.get("delay", 0)
    if not isinstance(delay, (int, float)) or isinstance(delay, bool) or not 0 <= delay <= MOST_DELAY:
        raise BAD_FILE(path=path, cause=f"{where}.delay must be seconds up to {MOST_DELAY:g}")
    if len(body) > MOST_BODY:
        raise BAD_FILE(path=path, cause=f"{where}: the body is larger than {MOST_BODY} bytes")
    status = whole(row.get("status", 200), 599, path, f"{where}.status")
    calls = whole(row["calls"], 1_000_000, path, f"{where}.calls") if row.get("calls") is not None else None
    return Answer(target, method, status, tuple(found), body, float(delay), calls)


# ---- the container that plays it


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def script(stub: Stub) -> str:
    """What runs for each connection."""
    if stub.reply is not None:
        return "#!/bin/sh\necho connection >> /stub/calls\ncat /stub/reply\n"
    arms = []
    for number, one in enumerate(stub.answers):
        subject = "$method $target" if "?" in one.path else "$method $path"
        pattern = quoted(f"{one.method} {one.path.removesuffix('*')}") + ("*" if one.path.endswith("*") else "")
        wait = f"sleep {one.delay:g}; " if one.delay else ""
        arms.append(f'case "{subject}" in {pattern}) echo "{number} $method $target" >> /stub/calls; {wait}cat /stub/{number}; exit;; esac')
    return "\n".join([
        "#!/bin/sh",
        "IFS=' ' read -r method target version || exit",
        "length=0; cr=$(printf '\\r')",
        "while read -r line; do",
        '  line=${line%"$cr"}; [ -n "$line" ] || break',
        '  case "$line" in [Cc]ontent-[Ll]ength:*) length=${line#*:}; length=${length# };; esac',
        "done",
        '[ "$length" -gt 0 ] 2>/dev/null && head -c "$length" > /dev/null',
        "path=${target%%\\?*}",
        *arms,
        'echo "- $method $target" >> /stub/calls',
        "cat /stub/none",
        "",
    ])  # fmt: skip


def files(stub: Stub) -> bytes:
    """A tar for / with all that the stub needs."""
    none = Answer("/", status=404, body=f"the stub {stub.name} has no answer for this\n".encode())
    content: dict[str, tuple[int, bytes]] = {"serve": (0o755, script(stub).encode()), "none": (0o644, none.raw)}
    if stub.reply is not None:
        content["reply"] = (0o644, stub.reply)
    content |= {str(number): (0o644, one.raw) for number, one in enumerate(stub.answers)}
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as tar:
        folder = tarfile.TarInfo("stub")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name, (mode, data) in content.items():
            entry = tarfile.TarInfo(f"stub/{name}")
            entry.mode, entry.size = mode, len(data)
            tar.addfile(entry, io.BytesIO(data))
    return spool.getvalue()


def command(stub: Stub) -> list[str]:
    """Busybox has ``-ll`` or, where it is built otherwise (Alpine), ``-lk`` for a server that goes on."""
    serve = f"-p {stub.port} -e /stub/serve"
    return ["sh", "-c", f": > {CALLS}; if nc --help 2>&1 | grep -q -- -ll; then exec nc -ll {serve}; else exec nc -lk {serve}; fi"]


def ready(stub: Stub) -> list[str]:
    """Succeeds when somebody listens on the port, as the kernel's tables tell."""
    return ["sh", "-c", f"cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -q ':{stub.port:04X} [0:]* 0A'"]


def unmet(stub: Stub, calls: str) -> list[str]:
    """A sentence for each answer that was not asked for as often as it must."""
    counts: dict[int, int] = {}
    for line in calls.splitlines():
        number = line.partition(" ")[0]
        if number.isdigit():
            counts[int(number)] = counts.get(int(number), 0) + 1
    return [
        f"stub {stub.name}: {one.method} {one.path} was called {counts.get(number, 0)} times, not {one.calls}"
        for number, one in enumerate(stub.answers)
        if one.calls is not None and counts.get(number, 0) != one.calls
    ]
