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
from dockyard.errors import Code, InvalidParameter, NotFound, System

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

    from dockyard.cli.context import LocalContext

Json = dict[str, Any]
FLAGS = {
    "build": """
    --add-host HOST:IP...  Add a line to /etc/hosts of steps
    --allow NAME...        Grant network.host or security.insecure
    --annotation TEXT...   KEY=VALUE, or manifest|index:KEY=VALUE
    --attest ATTRS...      Attest: type=sbom or type=provenance
    --build-arg KEY=VALUE...  Build argument (KEY: from here)
    --build-context NAME=PLACE...  One more: DIRECTORY, URL, docker-image://REF
    --cache-from CACHE...  IMAGE, type=registry,ref=R, type=local,src=DIR
    --cache-to CACHE...    type=inline|registry|local,ref=R|dest=DIR
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
    --load                 Accepted: the image is kept here anyway
-m, --memory BYTES         Memory limit of steps
    --memory-swap BYTES    Memory and swap limit of steps
    --metadata-file FILE   Write digests and names as JSON
    --network NETWORK      Network of RUN (any network, host, none)
    --no-cache             Use no cache
    --no-cache-filter STAGE...  Use no cache for these stages
-o, --output OUTPUT...     DIRECTORY, - or type=tar|oci|docker|image,...
    --platform LIST...     OS/ARCH to build for, one or several
    --progress MODE        auto, tty, plain, quiet or rawjson
    --provenance VALUE     --attest type=provenance (true, mode=max)
    --pull                 Always ask for newer base images
    --push                 Push the image to its registry
-q, --quiet                Print the image's ID only
    --rm                   Accepted: nothing is left of a step
    --sbom VALUE           --attest type=sbom (true)
    --secret ATTRS...      Secret of RUN: id=NAME,src=FILE or env=VAR
    --security-opt OPTION...  Security options of steps
    --shm-size BYTES       Size of /dev/shm in steps
    --squash               Make one layer of all
    --ssh ID...            Agent of RUN: default, or ID=SOCKET
-t, --tag NAME...          Name of the image
    --target STAGE         Stage to build
    --ulimit NAME=SOFT:HARD...  Limits of processes in steps
""",
}
EXAMPLES = {
    "build": "dockyard build -t app:1 .\ndockyard build --explain .\ndockyard build --check .\n"
    "dockyard build -f - . < Dockerfile\ndockyard build https://host/repository.git#main:folder\n"
    "dockyard build --secret id=token,src=token.txt --ssh default .\n"
    "dockyard build --platform linux/amd64,linux/arm64 -t host/app:1 --push .\n"
    "dockyard build -o type=local,dest=out .",
}
PATIENCE = 24 * 3600.0
"""Seconds that a step may stay silent."""
BUILD_FAILED = Code("DY-CLI-024", System, "{told}")
NO_SUCH_CALL = Code("DY-CLI-025", InvalidParameter, "--call {name}: check, outline or targets are known")
_SESSION_FLAGS = (
    "allow", "annotation", "attest", "build-context", "metadata-file", "no-cache-filter", "output", "provenance", "push",
    "sbom", "secret", "ssh",
)  # fmt: skip
"""What POST /build has no room for."""
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")


def build(shell: Shell, options: Options) -> int:
    place = options.words[0]
    call = "check" if options.on("check") else options.text("call")
    if call and call != "build":
        return _answer(shell, options, place, call)
    if _needs_session(options) or _cached_elsewhere(shell, options):
        return _over_buildkit(shell, options, place)
    pairs, body = _input(options, place)
    query = "&".join(f"{name}={quote(value)}" for name, value in [*pairs, *_wishes(options, _arguments(shell, options))])
    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": _credentials()}
    messages = shell.client.objects("POST", f"/build?{query}", None, body, headers=headers, timeout=PATIENCE)
    if options.on("json"):
        return _raw(shell, messages)
    return _shown(shell, options, messages)


def _needs_session(options: Options) -> bool:
    caches = [*options.all("cache-from"), *options.all("cache-to")]
    return (
        any(options.given(flag) for flag in _SESSION_FLAGS)
        or any("type=local" in word.split(",") for word in caches)
        or len([item for word in options.all("platform") for item in word.split(",") if item]) > 1
        or options.text("progress") == "rawjson"
    )


def _cached_elsewhere(shell: Shell, options: Options) -> bool:
    """POST /build takes the caches of images that are here, as moby's builder does; of others BuildKit asks the registry."""
    for word in options.all("cache-from"):
        if "=" not in word:
            try:
                shell.client.request("GET", f"/images/{quote(word)}/json")
            except NotFound:
                return True
    return False


def _over_buildkit(shell: Shell, options: Options, place: str) -> int:
    """As BuildKit's client."""
    from contextlib import ExitStack
    from pathlib import Path

    from dockyard.cli.buildkit.run import Build
    from dockyard.cli.buildkit.wish import wish_of

    with ExitStack() as stack:
        wish = wish_of(options, place, _arguments(shell, options), stack)
        to_stdout = any(output.dest == "-" for output in wish.outputs)
        if to_stdout and shell.on_terminal:
            raise Refusal("refusing to write an archive to a terminal: --output type=...,dest=FILE, or redirect")
        mode = _mode(shell, options)
        build = Build(shell.client, wish, mode=mode)
        if mode == "rawjson":
            failed = ""
            for message in build.messages():
                failed = failed or message.get("error", "")
                if "raw" in message:
                    print(message["raw"], file=sys.stderr)
            if failed:
                raise BUILD_FAILED(told=failed)
        else:
            _draw(shell, build.messages(), mode, out=sys.stderr if to_stdout else None)
    if options.given("iidfile"):
        _write_id(options.text("iidfile"), build.image)
    if options.given("metadata-file"):
        try:
            build.write_metadata(Path(options.text("metadata-file")))
        except OSError as error:
            raise Refusal(f"cannot write {options.text('metadata-file')}: {error.strerror}") from None
    if mode == "quiet" and not to_stdout:
        shell.say(build.image)
    return 0


def _draw(shell: Shell, messages: Iterator[Json], mode: str, out: TextIO | None) -> None:
    from dockyard.cli.buildview import BuildView

    view = BuildView(plain=mode == "plain", quiet=mode == "quiet", out=out)
    view.show(messages)
    if view.error:
        raise BUILD_FAILED(told=view.error)


def _mode(shell: Shell, options: Options) -> str:
    """tty, plain, quiet or rawjson. Raises UsageError."""
    mode = options.text("progress", "auto")
    if mode not in ("auto", "plain", "quiet", "tty", "rawjson"):
        raise UsageError(f'invalid argument "{mode}" for "--progress" flag: auto, tty, plain, quiet or rawjson is expected')
    if options.on("quiet"):
        return "quiet"
    return mode if mode != "auto" else "tty" if shell.on_terminal else "plain"


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


def _wishes(options: Options, arguments: dict[str, str | None]) -> list[tuple[str, str]]:
    """Flags as the query of POST /build. Raises UsageError."""
    out = [("t", tag) for tag in options.all("tag")] + [("extrahosts", host) for host in options.all("add-host")]
    documents: list[tuple[str, Any]] = [
        ("buildargs", arguments), ("labels", _pairs(options.all("label"))),
        ("cachefrom", options.all("cache-from")), ("cacheto", options.all("cache-to")),
        ("ulimits", [_ulimit(word) for word in options.all("ulimit")]),
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


def _arguments(shell: Shell, options: Options) -> dict[str, str | None]:
    """With the proxies of config.json, as for containers."""
    from dockyard.cli.request.values import proxies
    from dockyard.client.endpoint import config_dir, read_config

    words = options.all("build-arg")
    return build_args([*words, *proxies(read_config(config_dir(os.environ)), shell.client.endpoint.host, words)])


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

    mode = _mode(shell, options)
    quiet = mode == "quiet"
    view = BuildView(plain=mode == "plain", quiet=quiet)
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
