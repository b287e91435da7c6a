"""``run`` and ``create``."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from dockyard.cli import session, terminal
from dockyard.cli.flags import Options, UsageError
from dockyard.cli.request.create import Created, document
from dockyard.cli.request.declaration import CREATE, RUN_ONLY, ordered
from dockyard.cli.request.values import proxies
from dockyard.cli.session import Streams
from dockyard.cli.shell import Shell
from dockyard.client import quote
from dockyard.client.endpoint import config_dir, read_config
from dockyard.errors import DockyardError, NotFound

Json = dict[str, Any]
FLAGS = {"run": ordered(CREATE, RUN_ONLY), "create": ordered(CREATE)}
OPTIONS_END_AT_FIRST_WORD = ("run", "create")
PULLS = ("always", "missing", "never")
EXAMPLES = {
    "run": """
dockyard run --rm -it debian:bookworm-slim bash
dockyard run -d --name web -p 8080:80 -v data:/srv nginx
dockyard run --rm -m 256m --cpus 1.5 -e LEVEL=debug IMAGE COMMAND
""",
    "create": "dockyard create --name web -p 8080:80 nginx\ndockyard start web",
}


def create(shell: Shell, options: Options) -> int:
    created = _document(shell, options, detached=False)
    try:
        shell.say(_create(shell, options, created))
    except DockyardError as error:
        shell.refused(error)
        return 1
    return 0


def run(shell: Shell, options: Options) -> int:
    """Exit code: the container's; 125, 126, 127 when it did not run."""
    detached = options.on("detach")
    if detached and options.given("attach"):
        raise UsageError("conflicting options: cannot specify both --attach and --detach")
    created = _document(shell, options, detached=detached)
    keys = session.detach_keys(options)
    body = created.body
    streams = Streams(
        bool(body.get("AttachStdin")), bool(body.get("AttachStdout")), bool(body.get("AttachStderr")), body["Tty"], keys
    )
    if session.interactive_without_terminal(stdin=streams.stdin, tty=streams.tty):
        shell.complain(session.NO_TTY)
        return 1
    size = terminal.window() if streams.tty and sys.stdout.isatty() else None
    if size:
        body["HostConfig"]["ConsoleSize"] = list(size)
    try:
        container = _create(shell, options, created)
        if detached or not (streams.stdin or streams.stdout or streams.stderr):
            shell.client.request("POST", f"/containers/{container}/start", {"detachKeys": keys or None})
            shell.say(container)
            return 0
    except DockyardError as error:
        shell.refused(error)
        return session.start_status(str(error))
    return _attached(shell, options, container, streams, removed=options.on("rm"))


def _attached(shell: Shell, options: Options, container: str, streams: Streams, *, removed: bool) -> int:
    client = shell.client
    try:
        attached = session.attach(client, container, streams)
    except DockyardError as error:
        shell.refused(error)
        return session.CANNOT_RUN
    with (
        session.closing(attached) as stream,
        session.closing(session.ask_exit(client, container, "removed" if removed else "next-exit")) as waiting,
    ):
        try:
            detached = session.carry(
                shell, stream, streams, f"/containers/{container}", pass_signals=options.on("sig-proxy", default=True),
                begin=lambda: client.request("POST", f"/containers/{container}/start"),
            )  # fmt: skip
        except DockyardError as error:
            if removed:
                with contextlib.suppress(DockyardError):
                    session.exit_code(waiting)  # the engine removes it; then the name is free
            shell.refused(error)
            return session.start_status(str(error))
        return 0 if detached else session.exit_code(waiting)


def _document(shell: Shell, options: Options, *, detached: bool) -> Created:
    if options.text("pull", "missing") not in PULLS:
        raise UsageError(f"invalid pull option: '{options.text('pull')}': must be one of {', '.join(PULLS)}")
    from dockyard.oci import parse_reference

    try:
        parse_reference(options.words[0]) if not _is_id(options.words[0]) else None
    except DockyardError as error:
        raise UsageError(str(error)) from None
    created = document(options, detached=detached)
    config = read_config(config_dir(os.environ))
    if "proxies" in config:
        env = created.body.get("Env", [])
        created.body["Env"] = env + proxies(config, shell.client.endpoint.host, env)
    return created


def _is_id(image: str) -> bool:
    return len(image) == 64 and not image.strip("0123456789abcdef")


def _create(shell: Shell, options: Options, created: Created) -> str:
    """The ID. Pulls the image as ``--pull`` says."""
    image, pull = options.words[0], options.text("pull", "missing")
    with _cidfile(options.text("cidfile")) as write_id:
        if pull == "always":
            _pull(shell, options, image)
        path = "/containers/create"
        try:
            answer = shell.client.request("POST", path, created.query, created.body)
        except NotFound as missing:
            if pull != "missing" or "No such image" not in str(missing):
                raise
            if not options.on("quiet"):
                shell.complain(f"Unable to find image '{_with_tag(image)}' locally")
            _pull(shell, options, image)
            answer = shell.client.request("POST", path, created.query, created.body)
        write_id(answer["Id"])
    for warning in answer.get("Warnings") or ():
        shell.complain(f"WARNING: {warning}")
    return quote(answer["Id"])


def _pull(shell: Shell, options: Options, image: str) -> None:
    from dockyard.cli.transfer import pull

    pull(shell, image, platform=options.text("platform"), out=sys.stderr, quiet=options.on("quiet"))


def _with_tag(image: str) -> str:
    from dockyard.oci import parse_reference

    return parse_reference(image).with_default_tag().familiar


@contextlib.contextmanager
def _cidfile(path: str) -> Any:
    """Gives what writes the ID; the file must be new, and goes again if there is no ID to write."""
    if not path:
        yield lambda _: None
        return
    if os.path.exists(path):
        told = "container ID file found, make sure the other container isn't running or delete"
        raise UsageError(f"{told} {path}")
    try:
        with open(path, "x") as file:
            yield file.write
    except OSError as error:
        raise UsageError(f"failed to create the container ID file: {error}") from None
    finally:
        with contextlib.suppress(OSError):
            if os.path.getsize(path) == 0:
                os.unlink(path)
