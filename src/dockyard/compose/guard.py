"""Takes failures back, also when the process that made them was killed.

::

    chaos ── a line for each undo, before its failure is made ──► guard (this module as a program)
      │                                                             │
      └── undo(): does them itself, and says so ────────────────────┤
                                                                    ▼
                                        the pipe ends: what nobody has done is done, last first

An undo is data, so that either side can do it: ``["post", path, body]`` to the engine, ``["inside", place, script]`` in
a container, ``["netns", pid, inode, words]`` a command in a network namespace while it is the one that it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from dockyard.client import Client
from dockyard.client.endpoint import Endpoint, Tls
from dockyard.errors import DockyardError, NotModified

Undo = list[Any]
COMMAND_LIMIT = 20.0
END_LIMIT = 5.0


class Guard:
    """The undos of one experiment. The program is started with the first of them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._left: list[Undo] = []
        self._hops: list[subprocess.Popen[bytes]] = []
        self._program: subprocess.Popen[bytes] | None = None

    def post(self, path: str, body: Any = None) -> None:
        self._add(["post", path, body])

    def inside(self, place: str, script: str) -> None:
        self._add(["inside", place, script])

    def netns(self, pid: int, inode: int, words: list[str]) -> None:
        self._add(["netns", pid, inode, words])

    def hop(self, program: subprocess.Popen[bytes]) -> None:
        """A program that takes its failure back itself when its input ends: at `undo`, or with this process."""
        self._hops.append(program)

    def undo(self) -> list[str]:
        """Does what is left, last first. What could not be taken back, in words."""
        told = []
        while self._hops:
            hop = self._hops.pop()
            assert hop.stdin is not None
            hop.stdin.close()
            try:
                hop.wait(END_LIMIT)
            except subprocess.TimeoutExpired:
                hop.kill()
                hop.wait()
                told.append("the delay's program did not end and was killed")
        while self._left:
            told += do(self._client, self._left.pop())
            self._tell({"done": True})
        if self._program is not None:
            assert self._program.stdin is not None
            self._program.stdin.close()
            self._program.wait(END_LIMIT)
            self._program = None
        return told

    def _add(self, undo: Undo) -> None:
        if self._program is None:
            self._program = subprocess.Popen(
                [sys.executable, "-m", "dockyard.compose.guard"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            self._tell({"endpoint": self._client.endpoint._asdict(), "version": self._client.version})
        self._left.append(undo)
        self._tell({"undo": undo})

    def _tell(self, row: dict[str, Any]) -> None:
        assert self._program is not None
        assert self._program.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a guard that was killed cannot keep anybody from undoing
            self._program.stdin.write(json.dumps(row).encode() + b"\n")
            self._program.stdin.flush()


def do(client: Client, undo: Undo) -> list[str]:
    """What went wrong, in words."""
    kind, *rest = undo
    try:
        _DOERS[kind](client, *rest)
    except NotModified:
        pass
    except (DockyardError, OSError, subprocess.SubprocessError) as error:
        return [str(error)]
    return []


def _post(client: Client, path: str, body: Any) -> None:
    client.request("POST", path, None, body)


def _inside(client: Client, place: str, script: str) -> None:
    body = {"Cmd": ["sh", "-c", script], "AttachStdout": True, "AttachStderr": True}
    made = client.request("POST", f"{place}/exec", None, body)["Id"]
    with client.hijack(f"/exec/{made}/start", body={"Detach": False, "Tty": False}) as stream:
        for _ in stream.frames(tty=False):
            pass


def _netns(client: Client, pid: int, inode: int, words: list[str]) -> None:
    """Nothing is done in a namespace that took the old one's place: what was made is gone with it."""
    path = f"/proc/{pid}/ns/net"
    try:
        same = os.stat(path).st_ino == inode
    except FileNotFoundError:
        same = False
    if same:
        done = subprocess.run(["nsenter", f"--net={path}", "--", *words], capture_output=True, text=True, timeout=COMMAND_LIMIT)
        if done.returncode != 0:
            raise OSError(done.stderr.strip() or f"{words[0]} ended with {done.returncode}")


_DOERS: dict[str, Callable[..., None]] = {"post": _post, "inside": _inside, "netns": _netns}


def main() -> int:
    """The guard's side: reads until the other side ends, then does what is left."""
    client: Client | None = None
    left: list[Undo] = []
    for line in sys.stdin.buffer:
        row = json.loads(line)
        if "endpoint" in row:
            terms = row["endpoint"]
            tls = Tls(*terms.pop("tls")) if terms.get("tls") else None
            client = Client(Endpoint(**{**terms, "tls": tls}), version=row["version"])
        elif "undo" in row:
            left.append(row["undo"])
        elif left:
            left.pop()
    status = 0
    while left and client is not None:
        for told in do(client, left.pop()):
            status = 1
            with contextlib.suppress(OSError):
                print(f"dockyard chaos: cannot take back: {told}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
