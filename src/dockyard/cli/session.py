"""A container's stdio on our own: attach before start, pass signals and window sizes, and learn the exit code.

Order of ``run`` (docker/cli runContainer): attach, ask for the exit, start, resize, carry until the output ends. The
wait is asked before the start, so that the exit of a container that ends at once, or is removed at once, is not missed.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from dockyard.cli import terminal
from dockyard.cli.flags import Options
from dockyard.cli.shell import Shell
from dockyard.client import Client, Hijacked, Response, quote
from dockyard.errors import DockyardError

Json = dict[str, Any]
Closable = TypeVar("Closable", Hijacked, Response)
CANNOT_RUN, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
_MISSING = ("executable file not found", "no such file or directory", "system cannot find the file specified")
NO_TTY = "the input device is not a TTY"


class Streams(NamedTuple):
    """What of a container's stdio is carried."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool
    keys: str = ""
    """Detach keys as the user wrote them; "" are docker's."""

    @property
    def query(self) -> Json:
        return {
            "stream": True, "stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr,
            "detachKeys": self.keys or None,
        }  # fmt: skip


def detach_keys(options: Options) -> str:
    """``--detach-keys``, else those of config.json; checked."""
    import os

    from dockyard.client.endpoint import config_dir, read_config

    keys = options.text("detach-keys") or str(read_config(config_dir(os.environ)).get("detachKeys", ""))
    terminal.key_bytes(keys or terminal.DETACH_KEYS)
    return keys


def start_status(message: str) -> int:
    """Exit code of ``run`` for a refusal to start (docker/cli toStatusError)."""
    if any(text in message for text in _MISSING):
        return NOT_FOUND
    if any(text in message.lower() for text in ("permission denied", "is a directory")):
        return NOT_EXECUTABLE
    return CANNOT_RUN


def attach(client: Client, container: str, streams: Streams) -> Hijacked:
    return client.hijack(f"/containers/{quote(container)}/attach", streams.query)


def ask_exit(client: Client, container: str, condition: str | None = None) -> Response:
    """The wait under way; `exit_code` reads its answer. ``condition``: next-exit, removed; None: until it does not run."""
    answer = client.open("POST", f"/containers/{quote(container)}/wait", {"condition": condition})
    answer.settimeout(None)
    return answer


def exit_code(answer: Response) -> int:
    told = answer.json() or {}
    return int(told.get("StatusCode", CANNOT_RUN))


def carry(
    shell: Shell, stream: Hijacked, streams: Streams, place: str, *, pass_signals: bool = False,
    begin: Callable[[], object] = lambda: None,
) -> bool:  # fmt: skip
    """``begin`` (the start) and then all that goes in and out, until the end; True when detached. ``place`` is the path
    of the container or exec that hears of signals and window sizes."""
    keys = terminal.key_bytes(streams.keys or terminal.DETACH_KEYS)
    with contextlib.ExitStack() as stack:
        if pass_signals and not streams.tty:
            stack.enter_context(terminal.passing_signals(lambda name: _kill(shell.client, place, name)))
        begin()
        stack.enter_context(terminal.raw_terminal(streams.tty and streams.stdin))
        if streams.tty and sys.stdout.isatty():
            stack.enter_context(terminal.following_window(lambda *size: _resize(shell.client, place, *size)))
        return terminal.pump(stream, stdin=streams.stdin, tty=streams.tty, keys=keys)


def interactive_without_terminal(*, stdin: bool, tty: bool) -> bool:
    return stdin and tty and not sys.stdin.isatty()


@contextlib.contextmanager
def closing(thing: Closable) -> Iterator[Closable]:
    """Closes in any case; that the other end has gone before is no error."""
    try:
        yield thing
    finally:
        with contextlib.suppress(DockyardError, OSError):
            thing.close()


def _kill(client: Client, place: str, name: str) -> None:
    client.request("POST", f"{place}/kill", {"signal": name})


def _resize(client: Client, place: str, rows: int, columns: int) -> None:
    with contextlib.suppress(DockyardError):  # it may have ended already
        client.request("POST", f"{place}/resize", {"h": rows, "w": columns})
