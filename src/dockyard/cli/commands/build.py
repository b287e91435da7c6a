"""``build``: a context and a Dockerfile to an image, over POST /build; the checks and their like without any engine."""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from dockyard.cli.flags import Options, Refusal, UsageError
from dockyard.cli.request.values import size
from dockyard.cli.shell import Shell
from dockyard.client import quote
from dockyard.errors import Code, InvalidParameter, System

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dockyard.cli.context import LocalContext

Json = dict[str, Any]
FLAGS = {
    "build": """
    --add-host HOST:IP...  Add a line to /etc/hosts of steps
    --build-arg KEY=VALUE...  Build argument (KEY: from here)
    --cache-from IMAGE...  Images that may serve as a cache
    --call METHOD          Only answer: check, outline, targets
    --check                Same as --call check
    --cgroup-parent GROUP  Parent cgroup of steps
    --cpu-period N         Limit the CPU's CFS period
    --cpu-quota N          Limit the CPU's CFS quota
-c, --cpu-shares N         CPU shares (relative weight)
    --cpuset-cpus LIST     CPUs that steps may use
    --cpuset-mems LIST     Memory nodes that steps may use
    --explain              Say of every step why it ran
-f, --file FILE            Dockerfile (default PATH/Dockerfile; -: stdin)
    --force-rm             Accepted: nothing is left of a step
    --iidfile FILE         Write the image's ID to a file
    --json                 Print the engine's messages as they come
    --label KEY=VALUE...   Label of the image
-m, --memory BYTES         Memory limit of steps
    --memory-swap BYTES    Memory and swap limit of steps
    --network NETWORK      Network of RUN (any network, host, none)
    --no-cache             Use no cache
    --platform OS/ARCH     Platform to build for
    --progress MODE        auto, plain or quiet (default auto)
    --pull                 Always ask for newer base images
-q, --quiet                Print the image's ID only
    --rm                   Accepted: nothing is left of a step
    --security-opt OPTION...  Security options of steps
    --shm-size BYTES       Size of /dev/shm in steps
    --squash               Make one layer of all
-t, --tag NAME...          Name of the image
    --target STAGE         Stage to build
    --ulimit NAME=SOFT:HARD...  Limits of processes in steps
""",
}
EXAMPLES = {
    "build": "dockyard build -t app:1 .\ndockyard build --explain .\ndockyard build --check .\n"
    "dockyard build -f - . < Dockerfile\ndockyard build https://host/repository.git#main:folder",
}
PATIENCE = 24 * 3600.0
"""Seconds that a step may stay silent."""
BUILD_FAILED = Code("DY-CLI-024", System, "{told}")
NO_SUCH_CALL = Code("DY-CLI-025", InvalidParameter, "--call {name}: check, outline or targets are known")
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")


def build(shell: Shell, options: Options) -> int:
    place = options.words[0]
    call = "check" if options.on("check") else options.text("call")
    if call and call != "build":
        return _answer(shell, options, place, call)
    pairs, body = _input(options, place)
    query = "&".join(f"{name}={quote(value)}" for name, value in [*pairs, *_wishes(options)])
    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": _credentials()}
    messages = shell.client.objects("POST", f"/build?{query}", None, body, headers=headers, timeout=PATIENCE)
    if options.on("json"):
        return _raw(shell, messages)
    return _shown(shell, options, messages)


def _input(options: Options, place: str) -> tuple[list[tuple[str, str]], Any]:
    """What names and what carries the context."""
    file = options.text("file")
    if place == "-":
        if file == "-":
            raise UsageError("invalid argument: can't use stdin for both build context and dockerfile")
        return [("dockerfile", file)] if file else [], sys.stdin.buffer
    if place.startswith(_REMOTE) or place.endswith(".git"):
        return [("remote", place), *([("dockerfile", file)] if file else [])], None
    context = _local(options, place)
    return [("dockerfile", context.dockerfile)], context.tar()


def _local(options: Options, place: str) -> LocalContext:
    from dockyard.cli.context import open_context

    file = options.text("file")
    return open_context(place, file, sys.stdin.buffer.read() if file == "-" else None)


def _wishes(options: Options) -> list[tuple[str, str]]:
    """Flags as the query of POST /build. Raises UsageError."""
    out = [("t", tag) for tag in options.all("tag")] + [("extrahosts", host) for host in options.all("add-host")]
    documents: list[tuple[str, Any]] = [
        ("buildargs", build_args(options.all("build-arg"))), ("labels", _pairs(options.all("label"))),
        ("cachefrom", options.all("cache-from")), ("ulimits", [_ulimit(word) for word in options.all("ulimit")]),
        ("securityopt", options.all("security-opt")),
    ]  # fmt: skip
    out += [(name, json.dumps(value)) for name, value in documents if value]
    switches = [("nocache", "no-cache"), ("pull", "pull"), ("squash", "squash"), ("q", "quiet")]
    out += [(name, "1") for name, flag in switches if options.on(flag)]
    texts = [
        ("target", "target"), ("platform", "platform"), ("networkmode", "network"), ("cgroupparent", "cgroup-parent"),
        ("cpusetcpus", "cpuset-cpus"), ("cpusetmems", "cpuset-mems"), ("cpushares", "cpu-shares"),
        ("cpuquota", "cpu-quota"), ("cpuperiod", "cpu-period"),
    ]  # fmt: skip
    out += [(name, options.text(flag)) for name, flag in texts if options.given(flag)]
    sizes = [("memory", "memory"), ("memswap", "memory-swap"), ("shmsize", "shm-size")]
    out += [(name, str(size(options.text(flag), f"--{flag}"))) for name, flag in sizes if options.given(flag)]
    if not options.on("quiet"):
        out.append(("steps", "1"))
    return out


def build_args(words: Iterable[str]) -> dict[str, str | None]:
    """``KEY`` alone takes its value from the environment; without one there the default of the Dockerfile counts."""
    found: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        found[key] = value if equals else os.environ.get(key)
    return found


def _pairs(words: Iterable[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def _ulimit(word: str) -> Json:
    name, equals, values = word.partition("=")
    soft, _, hard = values.partition(":")
    if not equals or not soft.lstrip("-").isdigit() or not (hard or soft).lstrip("-").isdigit():
        raise UsageError(f'invalid argument "{word}" for "--ulimit" flag: name=soft[:hard] is expected')
    return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}


def _credentials() -> str:
    from dockyard.cli import auths

    return base64.urlsafe_b64encode(json.dumps(auths.all_credentials()).encode()).decode()


def _raw(shell: Shell, messages: Iterator[Json]) -> int:
    failed = False
    for message in messages:
        failed = failed or "error" in message
        shell.say(json.dumps(message))
    return int(failed)


def _shown(shell: Shell, options: Options, messages: Iterator[Json]) -> int:
    from dockyard.cli.buildview import BuildView, explained
    from dockyard.cli.output import terminal_width

    mode = options.text("progress", "auto")
    if mode not in ("auto", "plain", "quiet", "tty"):
        raise UsageError(f'invalid argument "{mode}" for "--progress" flag: auto, plain or quiet is expected')
    quiet = options.on("quiet") or mode == "quiet"
    view = BuildView(plain=mode == "plain" or (mode == "auto" and not shell.on_terminal), quiet=quiet)
    view.show(messages)
    if options.on("explain") and view.steps:
        shell.say()
        for line in explained(view.steps.values(), terminal_width() if shell.on_terminal else 0):
            shell.say(line)
    if view.error:
        error = BUILD_FAILED(told=view.error)
        error.hint = view.hint
        raise error
    if options.given("iidfile"):
        _write_id(options.text("iidfile"), view.image)
    if quiet:
        shell.say(view.image)
    elif shell.on_terminal and mode != "plain":
        names = "".join(f"\n  {tag}" for tag in options.all("tag"))
        shell.say(f"built {view.image}{names}")
    return 0


def _write_id(path: str, image: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(image)
    except OSError as error:
        raise Refusal(f"cannot write {path}: {error.strerror}") from None


def _answer(shell: Shell, options: Options, place: str, call: str) -> int:
    """``--call``: from the text alone."""
    from dockyard.build import calls
    from dockyard.build.dockerfile.parser import SyntaxProblem
    from dockyard.build.dockerfile.suggest import explain

    if place == "-" or place.startswith(_REMOTE):
        raise UsageError("--call reads a local directory")
    context = _local(options, place)
    name = options.text("file") or context.dockerfile
    arguments = build_args(options.all("build-arg"))
    try:
        if call == "check":
            rows, _ = calls.check(context.text, arguments, ignore=context.ignore)
            answer = calls.report(context.text, name, rows)
        elif call == "outline":
            answer = calls.outline(context.text, options.text("target"), arguments)
        elif call == "targets":
            answer = calls.targets(context.text)
        else:
            raise NO_SUCH_CALL(name=call)
    except SyntaxProblem as problem:
        raise Refusal(explain(problem, name, tuple(context.text.decode("utf-8", "replace").splitlines()))) from None
    if options.on("json"):
        shell.say(answer["result.json"].decode())
    elif call == "check" and answer["result.statuscode"] == b"0":
        shell.say("Check complete, no warnings found.")
    else:
        shell.say(answer["result.txt"].decode().strip("\n"))
    return int(answer.get("result.statuscode", b"0"))
