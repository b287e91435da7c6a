"""Typed instructions: what one node means, with flags and counts checked. Words are not expanded yet.

All 18 instructions of the Dockerfile reference (frontend 1.26). Only ``parse_instruction`` raises (SyntaxProblem).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from .parser import INSTRUCTIONS, Dockerfile, Heredoc, Node, SyntaxProblem
from .suggest import did_you_mean

__all__ = [
    "Arg", "Command", "Copy", "Env", "Expose", "From", "Healthcheck", "Instruction", "Label", "Maintainer", "Onbuild",
    "Run", "Shell", "Stage", "StopSignal", "User", "Volume", "Workdir", "parse_instruction", "split_stages",
]  # fmt: skip

_STAGE_NAME = re.compile(r"^[a-z][a-z0-9-_.]*$")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}

_FLAGS: dict[str, tuple[str, ...]] = {
    "from": ("platform",),
    "run": ("mount", "network", "security"),
    "copy": ("from", "chown", "chmod", "link", "parents", "exclude"),
    "add": ("chown", "chmod", "link", "keep-git-dir", "checksum", "exclude", "unpack"),
    "healthcheck": ("interval", "timeout", "start-period", "start-interval", "retries"),
}
_REPEATABLE = frozenset({"mount", "exclude"})
_BOOLEAN = frozenset({"link", "parents", "keep-git-dir", "unpack"})


@dataclass(frozen=True, slots=True)
class Instruction:
    node: Node


@dataclass(frozen=True, slots=True)
class From(Instruction):
    image: str
    platform: str
    alias: str


@dataclass(frozen=True, slots=True)
class Arg(Instruction):
    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Env(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]
    spaced: bool  # "LABEL name the value": the value is taken as one word


@dataclass(frozen=True, slots=True)
class Run(Instruction):
    args: tuple[str, ...]
    shell_form: bool
    mounts: tuple[str, ...]
    network: str
    security: str
    heredocs: tuple[Heredoc, ...]


@dataclass(frozen=True, slots=True)
class Copy(Instruction):
    """COPY and ADD."""

    sources: tuple[str, ...]
    target: str
    add: bool
    origin: str  # --from
    chown: str
    chmod: str
    link: bool
    parents: bool
    exclude: tuple[str, ...]
    checksum: str
    keep_git_dir: bool
    unpack: bool | None
    heredocs: tuple[Heredoc, ...]


@dataclass(frozen=True, slots=True)
class Command(Instruction):
    """CMD and ENTRYPOINT."""

    args: tuple[str, ...]
    shell_form: bool


@dataclass(frozen=True, slots=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Healthcheck(Instruction):
    """``test`` as the image config has it: ["NONE"], ["CMD", ...] or ["CMD-SHELL", line]. Times in nanoseconds."""

    test: tuple[str, ...]
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int


@dataclass(frozen=True, slots=True)
class Maintainer(Instruction):
    name: str


@dataclass(frozen=True, slots=True)
class Onbuild(Instruction):
    expression: str


@dataclass(frozen=True, slots=True)
class Shell(Instruction):
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopSignal(Instruction):
    signal: str


@dataclass(frozen=True, slots=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, slots=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM with all that follows it. ``index`` counts from 0."""

    index: int
    origin: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        return self.origin.alias or str(self.index)


def split_stages(dockerfile: Dockerfile) -> tuple[tuple[Arg, ...], tuple[Stage, ...]]:
    """Global ARGs and stages. Raises SyntaxProblem."""
    globals_: list[Arg] = []
    stages: list[Stage] = []
    for node in dockerfile.nodes:
        item = parse_instruction(node)
        if isinstance(item, From):
            stages.append(Stage(len(stages), item, ()))
        elif stages:
            stages[-1] = replace(stages[-1], instructions=(*stages[-1].instructions, item))
        elif isinstance(item, Arg):
            globals_.append(item)
        else:
            raise SyntaxProblem(f"no build stage in current context: {node.name.upper()} before FROM", node.line)
    if not stages:
        raise SyntaxProblem("no build stage in current context: no FROM in the file")
    return tuple(globals_), tuple(stages)


def parse_instruction(node: Node) -> Instruction:
    try:
        return _PARSERS[node.name](node, _flags_of(node))
    except SyntaxProblem as problem:
        problem.line = problem.line or node.line
        problem.word = problem.word or node.name
        raise


_Flags = dict[str, list[str]]


def _flags_of(node: Node) -> _Flags:
    known = _FLAGS.get(node.name, ())
    found: _Flags = {}
    for flag in node.flags:
        name, equals, value = flag[2:].partition("=")
        if name not in known:
            raise SyntaxProblem(
                f"unknown flag: --{name}{did_you_mean('--' + name, ['--' + k for k in known])}", node.line, "--" + name
            )
        if name in _BOOLEAN:
            value = value.lower() if equals else "true"
            if value not in ("true", "false", "1", "0"):
                raise SyntaxProblem(f"expecting boolean value for flag {name}, not: {value}", node.line, flag)
        elif not equals:
            raise SyntaxProblem(f"missing a value on flag: {name}", node.line, flag)
        if name in found and name not in _REPEATABLE:
            raise SyntaxProblem(f"duplicate flag specified: {name}", node.line, "--" + name)
        found.setdefault(name, []).append(value)
    return found


def _one(flags: _Flags, name: str) -> str:
    return flags[name][0] if name in flags else ""


def _boolean(flags: _Flags, name: str) -> bool:
    return _one(flags, name) in ("true", "1")


def _at_least_one(node: Node) -> None:
    if not node.args or not any(node.args):
        raise SyntaxProblem(f"{node.name.upper()} requires at least one argument")


def _exactly_one(node: Node) -> str:
    if len(node.args) != 1:
        raise SyntaxProblem(f"{node.name.upper()} requires exactly one argument")
    return node.args[0]


def _from(node: Node, flags: _Flags) -> From:
    args = node.args
    if len(args) not in (1, 3) or (len(args) == 3 and args[1].lower() != "as"):
        raise SyntaxProblem("FROM requires either one or three arguments")
    alias = args[2].lower() if len(args) == 3 else ""
    if alias and not _STAGE_NAME.match(alias):
        raise SyntaxProblem(
            f'invalid name for build stage: "{args[2]}", name can\'t start with a number or contain symbols', 0, args[2]
        )
    return From(node, args[0], _one(flags, "platform"), alias)


def _arg(node: Node, _flags: _Flags) -> Arg:
    _at_least_one(node)
    pairs: list[tuple[str, str | None]] = []
    for word in node.args:
        name, equals, value = word.partition("=")
        if not name:
            raise SyntaxProblem("ARG names can not be blank", 0, word)
        pairs.append((name, value if equals else None))
    return Arg(node, tuple(pairs))


def _pairs(node: Node) -> tuple[tuple[str, str], ...]:
    _at_least_one(node)
    triples = zip(node.args[0::3], node.args[1::3], strict=False)
    found = tuple(triples)
    if any(not name for name, _ in found):
        raise SyntaxProblem(f"{node.name.upper()} names can not be blank")
    return found


def _label(node: Node, _flags: _Flags) -> Label:
    return Label(node, _pairs(node), node.args[2:3] == ("",))


def _run(node: Node, flags: _Flags) -> Run:
    _at_least_one(node)
    network = _one(flags, "network")
    security = _one(flags, "security") or "sandbox"
    if security not in ("sandbox", "insecure"):
        # An unknown word must never mean "insecure" (buildkit 64bbec89).
        raise SyntaxProblem(f"security mode {security!r} is not supported", 0, security)
    return Run(node, node.args, not node.is_json, tuple(flags.get("mount", ())), network, security, node.heredocs)


def _copy(node: Node, flags: _Flags) -> Copy:
    add = node.name == "add"
    if len(node.args) < 2:
        count = len(node.args)
        raise SyntaxProblem(f"{node.name.upper()} requires at least two arguments, but only {count} were given")
    unpack = _boolean(flags, "unpack") if "unpack" in flags else None
    return Copy(
        node, node.args[:-1], node.args[-1], add, _one(flags, "from"), _one(flags, "chown"), _one(flags, "chmod"),
        _boolean(flags, "link"), _boolean(flags, "parents"), tuple(flags.get("exclude", ())), _one(flags, "checksum"),
        _boolean(flags, "keep-git-dir"), unpack, node.heredocs,
    )  # fmt: skip


def _command(node: Node, _flags: _Flags) -> Command:
    if node.name == "entrypoint" and not node.args and not node.is_json:
        raise SyntaxProblem("ENTRYPOINT requires at least one argument")
    return Command(node, node.args, not node.is_json)


def _expose(node: Node, _flags: _Flags) -> Expose:
    _at_least_one(node)
    return Expose(node, node.args)


def duration(text: str, flag: str) -> int:
    """Go's duration to nanoseconds. Docker refuses what is neither 0 nor at least 1 ms."""
    if text in ("", "0"):
        return 0
    parts = _DURATION.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise SyntaxProblem(f'time: invalid duration "{text}" for --{flag}', 0, text)
    total = int(sum(float(n) * _UNITS[u] for n, u in parts))
    if 0 < total < 10**6:
        raise SyntaxProblem(f"Interval '{flag}' cannot be less than 1ms", 0, text)
    return total


def _healthcheck(node: Node, flags: _Flags) -> Healthcheck:
    _at_least_one(node)
    kind, *args = node.args
    if kind.upper() == "NONE":
        if args:
            raise SyntaxProblem("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(node, ("NONE",), 0, 0, 0, 0, 0)
    if kind.upper() != "CMD":
        raise SyntaxProblem(f"Unknown type{kind!r} in HEALTHCHECK (try CMD)", 0, kind)
    if not args:
        raise SyntaxProblem("Missing command after HEALTHCHECK CMD")
    retries = _one(flags, "retries") or "0"
    if not retries.isdigit():
        raise SyntaxProblem(f"--retries must be at least 0 (not {retries})", 0, retries)
    interval, timeout, start, start_interval = (
        duration(_one(flags, f), f) for f in ("interval", "timeout", "start-period", "start-interval")
    )
    test = ("CMD", *args) if node.is_json else ("CMD-SHELL", *args)
    return Healthcheck(node, test, interval, timeout, start, start_interval, int(retries))


def _onbuild(node: Node, _flags: _Flags) -> Onbuild:
    child = node.child
    assert child is not None
    if child.name in ("onbuild", "from", "maintainer"):
        what = "Chaining ONBUILD via `ONBUILD ONBUILD`" if child.name == "onbuild" else child.name.upper()
        tail = "isn't allowed" if child.name == "onbuild" else "isn't allowed as an ONBUILD trigger"
        raise SyntaxProblem(f"{what} {tail}")
    parse_instruction(replace(child, heredocs=node.heredocs))
    text = child.original
    if node.heredocs:
        text = text + "\n" + "".join(f"{h.content}{h.name}\n" for h in node.heredocs)
    return Onbuild(node, text.strip())


def _shell(node: Node, _flags: _Flags) -> Shell:
    if not node.is_json or not node.args:
        raise SyntaxProblem("SHELL requires the arguments to be in JSON form")
    return Shell(node, node.args)


def _volume(node: Node, _flags: _Flags) -> Volume:
    _at_least_one(node)
    if any(not p for p in node.args):
        raise SyntaxProblem("VOLUME specified can not be an empty string")
    return Volume(node, node.args)


_PARSERS: dict[str, Callable[[Node, _Flags], Instruction]] = {
    "add": _copy, "arg": _arg, "cmd": _command, "copy": _copy, "entrypoint": _command,
    "env": lambda n, _f: Env(n, _pairs(n)), "expose": _expose, "from": _from, "healthcheck": _healthcheck,
    "label": _label, "maintainer": lambda n, _f: Maintainer(n, _exactly_one(n)), "onbuild": _onbuild, "run": _run,
    "shell": _shell, "stopsignal": lambda n, _f: StopSignal(n, _exactly_one(n)),
    "user": lambda n, _f: User(n, _exactly_one(n)), "volume": _volume,
    "workdir": lambda n, _f: Workdir(n, _exactly_one(n)),
}  # fmt: skip
assert {n.upper() for n in _PARSERS} == set(INSTRUCTIONS)
