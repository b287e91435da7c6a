"""``exec``, ``attach`` and ``start``: what takes part in a container's stdio."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from dockyard.cli import session, terminal
from dockyard.cli.flags import Options, Refusal
from dockyard.cli.request.values import environment
from dockyard.cli.session import Streams
from dockyard.cli.shell import Shell
from dockyard.client import quote
from dockyard.errors import DockyardError, NotModified

Json = dict[str, Any]
FLAGS = {
    "exec": """
-d, --detach               Run the command in the background
    --detach-keys KEYS     Keys that detach (ctrl-p,ctrl-q)
-e, --env KEY=VALUE...     Environment variable (KEY: as it is here)
    --env-file FILE...     Environment variables from a file
-i, --interactive          Keep stdin open even if not attached
    --privileged           Give the command all privileges
-t, --tty                  Give a pseudo-terminal
-u, --user USER[:GROUP]    User or UID, group or GID
-w, --workdir PATH         Working directory
""",
    "attach": """
    --detach-keys KEYS     Keys that detach (ctrl-p,ctrl-q)
    --no-stdin             Do not attach stdin
    --sig-proxy            Pass signals to the process (default true)
""",
    "start": """
-a, --attach               Attach stdout and stderr, pass signals
    --checkpoint NAME      Restore from this checkpoint
    --checkpoint-dir DIR   Directory of the checkpoint
    --detach-keys KEYS     Keys that detach (ctrl-p,ctrl-q)
-i, --interactive          Attach stdin
""",
}
OPTIONS_END_AT_FIRST_WORD = ("exec",)
EXAMPLES = {
    "exec": "dockyard exec -it web sh\ndockyard exec -u postgres -w /tmp db psql -c 'select 1'",
    "attach": "dockyard attach --no-stdin web\ndockyard attach --detach-keys ctrl-x web",
    "start": "dockyard start web db\ndockyard start -ai shell",
}
EXIT_LIMIT, EXIT_PAUSE = 5.0, 0.01
WAYS_NOT_TO_ATTACH = (
    ("Paused", "cannot attach to a paused container, unpause it first"),
    ("Restarting", "cannot attach to a restarting container, wait until it is running"),
)


def exec(shell: Shell, options: Options) -> int:
    container, *command = options.words
    keys, detached = session.detach_keys(options), options.on("detach")
    tty, stdin = options.on("tty"), options.on("interactive") and not detached
    if session.interactive_without_terminal(stdin=stdin, tty=tty):
        shell.complain(session.NO_TTY)
        return 1
    size = terminal.window() if tty and sys.stdout.isatty() else None
    wish: Json = {
        "Cmd": command, "Tty": tty, "AttachStdin": stdin, "AttachStdout": not detached, "AttachStderr": not detached,
        "Privileged": options.on("privileged"), "User": options.text("user"), "WorkingDir": options.text("workdir"),
        "Env": environment(options.all("env-file"), options.all("env")), "DetachKeys": keys, "Detach": detached,
    }  # fmt: skip
    begin: Json = {"Detach": detached, "Tty": tty}
    if size:
        wish["ConsoleSize"] = begin["ConsoleSize"] = list(size)
    client = shell.client
    made = client.request("POST", f"/containers/{quote(container)}/exec", body=wish)["Id"]
    if detached:
        client.request("POST", f"/exec/{made}/start", body=begin)
        return 0
    with session.closing(client.hijack(f"/exec/{made}/start", body=begin)) as stream:
        if session.carry(shell, stream, Streams(stdin, True, True, tty, keys), f"/exec/{made}"):
            return _left(shell)
    return _exec_code(shell, made)


def _exec_code(shell: Shell, made: str) -> int:
    """The output can end a little before the engine has the exit code; 0 for a process that goes on without output."""
    end = time.monotonic() + EXIT_LIMIT
    while True:
        told = shell.client.request("GET", f"/exec/{made}/json")
        if not told.get("Running") or time.monotonic() > end:
            return int(told.get("ExitCode") or 0)
        time.sleep(EXIT_PAUSE)


def attach(shell: Shell, options: Options) -> int:
    name, keys, client = options.words[0], session.detach_keys(options), shell.client
    document = client.request("GET", f"/containers/{quote(name)}/json")
    state, config = document["State"], document["Config"]
    if not state["Running"]:
        shell.complain("cannot attach to a stopped container, start it first")
        return 1
    for key, told in WAYS_NOT_TO_ATTACH:
        if state.get(key):
            shell.complain(told)
            return 1
    streams = Streams(config["OpenStdin"] and not options.on("no-stdin"), True, True, config["Tty"], keys)
    if session.interactive_without_terminal(stdin=streams.stdin, tty=streams.tty):
        shell.complain(session.NO_TTY)
        return 1
    container = document["Id"]
    place = f"/containers/{container}"
    with session.closing(session.ask_exit(client, container)) as waiting:
        with session.closing(session.attach(client, container, streams)) as stream:
            if session.carry(
                shell, stream, streams, place, pass_signals=options.on("sig-proxy", default=True),
                begin=lambda: _redraw(shell, place, streams),
            ):  # fmt: skip
                return _left(shell)
        return session.exit_code(waiting)


def _redraw(shell: Shell, place: str, streams: Streams) -> None:
    """A program that draws on its terminal draws anew when the size changes: one row more, then the true size."""
    size = terminal.window() if streams.tty and sys.stdout.isatty() else None
    if size:
        with contextlib.suppress(DockyardError):
            shell.client.request("POST", f"{place}/resize", {"h": size[0] + 1, "w": size[1] + 1})


def _left(shell: Shell) -> int:
    """Detached by keys: docker's sentence and status."""
    shell.complain("read escape sequence")
    return 1


def start(shell: Shell, options: Options) -> int:
    if options.given("checkpoint") or options.given("checkpoint-dir"):
        wanted = {key: options.text(key) or None for key in ("checkpoint", "checkpoint-dir")}
        return _start_each(shell, options, wanted)
    if not options.on("attach") and not options.on("interactive"):
        return _start_each(shell, options, {})
    if len(options.words) > 1:
        raise Refusal("you cannot start and attach multiple containers at once")
    keys, client = session.detach_keys(options), shell.client
    document = client.request("GET", f"/containers/{quote(options.words[0])}/json")
    config, container = document["Config"], document["Id"]
    streams = Streams(options.on("interactive") and config["OpenStdin"], True, True, config["Tty"], keys)
    if session.interactive_without_terminal(stdin=streams.stdin, tty=streams.tty):
        shell.complain(session.NO_TTY)
        return 1
    condition = "removed" if document["HostConfig"].get("AutoRemove") else "next-exit"
    with (
        session.closing(session.attach(client, container, streams)) as stream,
        session.closing(session.ask_exit(client, container, condition)) as waiting,
    ):
        if session.carry(
            shell, stream, streams, f"/containers/{container}", pass_signals=True,
            begin=lambda: _start(shell, container, {}),
        ):  # fmt: skip
            return 0
        return session.exit_code(waiting)


def _start_each(shell: Shell, options: Options, query: Json) -> int:
    failed: list[str] = []

    def one(name: str) -> str:
        try:
            _start(shell, name, query)
        except DockyardError:
            failed.append(name)
            raise
        return name

    status = shell.each(options.words, one)
    if failed:
        shell.complain(f"failed to start containers: {', '.join(failed)}")
    return status


def _start(shell: Shell, name: str, query: Json) -> None:
    with contextlib.suppress(NotModified):  # it runs already
        shell.client.request("POST", f"/containers/{quote(name)}/start", query)
