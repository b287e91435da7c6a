"""From a Dockerfile and a request to a graph of steps. Pure: what must be looked up is asked for by an exception.

    plan(dockerfile, request, images) ── NeedImages(refs) ──► caller resolves them ──► plan(...) again ──► Graph

Scoping, as the reference has it: FROM sees global ARGs and platform ARGs only; inside a stage ENV beats ARG; one
instruction sees one snapshot of the environment; a stage that nothing needs is not planned at all. ARG values enter the
key of every later RUN (they are part of its environment); predefined proxy ARGs reach RUN but neither key nor history.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .dockerfile import instructions as ins
from .dockerfile.mounts import Mount, parse_mount
from .dockerfile.parser import Dockerfile, SyntaxProblem, parse
from .dockerfile.suggest import did_you_mean
from .dockerfile.words import ExpandError, expand, expand_words
from .errors import NO_SUCH_STAGE
from .history import classic_history
from .model import BaseImage, Copy, Exec, Graph, Meta, Operation, Origin, PlannedStage, Request, Step, Workdir

__all__ = ["DEFAULT_PATH", "NeedImages", "host_platform", "plan"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROXY_ARGS = frozenset(
    name for base in ("http", "https", "ftp", "no", "all") for name in (f"{base}_proxy", f"{base.upper()}_PROXY")
)
MAX_ONBUILD = 1000
IMAGE_CONTEXT = "docker-image://"
"""A named context that is an image stands wherever its name does: FROM, COPY --from, RUN --mount from."""
_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


class NeedImages(Exception):
    """Plan again with these references resolved: (reference, platform) pairs."""

    def __init__(self, refs: set[tuple[str, str]]) -> None:
        super().__init__(str(refs))
        self.refs = refs


Images = Mapping[tuple[str, str], BaseImage]


def host_platform(machine: str) -> str:
    return "linux/" + _ARCH.get(machine, machine)


def plan(dockerfile: Dockerfile, request: Request, images: Images, build_platform: str) -> Graph:
    """Raises SyntaxProblem (bad file), DockyardError (no such target) or NeedImages."""
    globals_, stages = ins.split_stages(dockerfile)
    planner = _Planner(dockerfile, request, images, stages, build_platform)
    planner.read_globals(globals_)
    target = planner.find_target()
    try:
        planner.need(target)
    except RecursionError:
        raise SyntaxProblem("stages stand on one another too deeply") from None
    if planner.missing:
        raise NeedImages(planner.missing)
    return planner.graph(target)


def _platform_args(target: str, build: str) -> dict[str, str]:
    out: dict[str, str] = {}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        system, _, rest = platform.partition("/")
        arch, _, variant = rest.partition("/")
        out |= {
            f"{prefix}PLATFORM": platform, f"{prefix}OS": system, f"{prefix}ARCH": arch, f"{prefix}VARIANT": variant,
        }  # fmt: skip
    return out


class _Planner:
    def __init__(
        self, dockerfile: Dockerfile, request: Request, images: Images, stages: tuple[ins.Stage, ...], build: str
    ) -> None:
        self.dockerfile, self.request, self.images, self.stages = dockerfile, request, images, stages
        self.platform = request.platform or build
        self.predefined = _platform_args(self.platform, build)
        self.globals: dict[str, str | None] = {}
        self.planned: dict[int, PlannedStage] = {}
        self.missing: set[tuple[str, str]] = set()
        self.consumed: set[str] = set()
        self.warnings: list[str] = []

    def read_globals(self, globals_: tuple[ins.Arg, ...]) -> None:
        for arg in globals_:
            for name, default in arg.pairs:
                value = None if default is None else self.word(default, self.global_env(), arg)
                self.globals[name] = self.request.build_args.get(name) or value
                self.consumed.add(name)

    def global_env(self) -> dict[str, str]:
        return {**self.predefined, **{k: v for k, v in self.globals.items() if v is not None}}

    def word(self, text: str, env: Mapping[str, str], at: ins.Instruction) -> str:
        try:
            return expand(text, env, self.dockerfile.escape).text
        except ExpandError as error:
            raise SyntaxProblem(f"failed to process {text!r}: {error}", at.node.line, text) from None

    def words(self, text: str, env: Mapping[str, str], at: ins.Instruction) -> list[str]:
        try:
            return expand_words(text, env, self.dockerfile.escape)
        except ExpandError as error:
            raise SyntaxProblem(f"failed to process {text!r}: {error}", at.node.line, text) from None

    def find_target(self) -> int:
        wanted = self.request.target.lower()
        if not wanted:
            return len(self.stages) - 1
        for stage in self.stages:
            if stage.origin.alias == wanted:
                return stage.index
        if wanted.isdigit() and int(wanted) < len(self.stages):
            return int(wanted)
        suggestion = did_you_mean(wanted, [s.name for s in self.stages])
        raise NO_SUCH_STAGE(name=self.request.target, suggestion=suggestion)

    def stage_named(self, name: str, before: int) -> int | None:
        for stage in reversed(self.stages[:before]):
            if stage.origin.alias == name.lower():
                return stage.index
        if name.isdigit():
            if int(name) >= before:
                raise SyntaxProblem(f"invalid from flag value {name}: refers to a stage that is not before this one")
            return int(name)
        if any(s.origin.alias == name.lower() for s in self.stages[before:]):
            raise SyntaxProblem(f"circular dependency: stage {name} is not defined before it is used", 0, name)
        return None

    def image(self, ref: str, platform: str) -> BaseImage | None:
        if ref == "scratch":
            return BaseImage("scratch")
        found = self.images.get((ref, platform))
        if found is None:
            self.missing.add((ref, platform))
        return found

    def need(self, index: int) -> PlannedStage | None:
        """Plan a stage and, first, those it stands on. None while an image is missing."""
        if index in self.planned:
            return self.planned[index]
        stage = self.stages[index]
        name = self.word(stage.origin.image, self.global_env(), stage.origin)
        if not name:
            raise SyntaxProblem(f"base name ({stage.origin.image}) should not be blank", stage.origin.node.line, "FROM")
        named = self.request.contexts.get(name, "")
        if named.startswith(IMAGE_CONTEXT):
            name = named.removeprefix(IMAGE_CONTEXT)
        try:
            parent = self.stage_named(name, index) if not name.isdigit() and not named else None
        except SyntaxProblem as problem:
            problem.line = stage.origin.node.line
            raise
        base: BaseImage | int | None = parent
        if parent is not None:
            below = self.need(parent)
            config = below.config if below else None
        else:
            platform = self.word(stage.origin.platform, self.global_env(), stage.origin) or self.platform
            base = self.image(name, platform)
            config = (base.document.get("config") or {}) if base else None
        if config is None or base is None:
            self.scan(stage)
            return None
        planned = _StagePlanner(self, stage, base, dict(config)).run()
        if planned is not None:
            self.planned[index] = planned
        return planned

    def scan(self, stage: ins.Stage) -> None:
        """The base is not known yet: ask at least for what this stage names plainly, to save a round."""
        for item in stage.instructions:
            if isinstance(item, ins.Copy) and item.origin and "$" not in item.origin and item.origin not in self.request.contexts:
                other = self.stage_named(item.origin, stage.index)
                if other is None:
                    self.image(item.origin, self.platform)
                else:
                    self.need(other)

    def graph(self, target: int) -> Graph:
        unused = [k for k in self.request.build_args if k not in self.consumed | PROXY_ARGS and not _builtin(k)]
        if unused:
            self.warnings.append(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed")
        number = 0
        stages: list[PlannedStage] = []
        for _, stage in sorted(self.planned.items()):
            number += 1
            first = number
            steps = tuple(replace(s, number=number + i) for i, s in enumerate(stage.steps, 1))
            number += len(steps)
            stages.append(replace(stage, steps=steps, number=first))
        system, _, rest = self.platform.partition("/")
        arch, _, variant = rest.partition("/")
        epoch = self.request.build_args.get("SOURCE_DATE_EPOCH") or self.globals.get("SOURCE_DATE_EPOCH")
        if epoch and not re.fullmatch(r"\d{1,12}", epoch):
            raise SyntaxProblem(f"invalid SOURCE_DATE_EPOCH: {epoch}")
        images = {ref: image for (ref, platform), image in self.images.items() if platform == self.platform}
        return Graph(
            tuple(stages), target, (system, arch, variant), number, tuple(self.warnings),
            int(epoch) if epoch else None, {"scratch": BaseImage("scratch"), **images},
        )  # fmt: skip


def _builtin(name: str) -> bool:
    return name.startswith("BUILDKIT_") or name == "SOURCE_DATE_EPOCH"


@dataclass
class _StagePlanner:
    """One stage, instruction by instruction; the only mutable thing of the planner."""

    planner: _Planner
    stage: ins.Stage
    base: BaseImage | int
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import copy

        self.config = copy.deepcopy(self.config)
        self.image_env: dict[str, str] = {
            item.partition("=")[0]: item.partition("=")[2] for item in self.config.get("Env") or ()
        }
        if isinstance(self.base, BaseImage) and not self.base.id:
            self.image_env.setdefault("PATH", DEFAULT_PATH)
        self.args: dict[str, str] = {}
        self.steps: list[Step] = []
        self.needs: set[int] = {self.base} if isinstance(self.base, int) else set()
        self.author = ""
        self.waiting = False
        self.instruction: ins.Instruction = self.stage.origin

    def run(self) -> PlannedStage | None:
        for trigger in self.onbuild():
            self.apply(trigger, "ONBUILD ")
        self.config.pop("OnBuild", None)
        cmd_here = False
        for item in self.stage.instructions:
            self.apply(item, "")
            cmd_here = cmd_here or (isinstance(item, ins.Command) and item.node.name == "cmd")
            if isinstance(item, ins.Command) and item.node.name == "entrypoint" and not cmd_here:
                self.config.pop("Cmd", None)  # a base image's CMD was meant for its own ENTRYPOINT
        if self.stage.index == self.planner.find_target() and self.planner.request.labels:
            self.labels(self.planner.request.labels)
        self.config["Env"] = [f"{k}={v}" for k, v in self.image_env.items()]
        self.config.setdefault("WorkingDir", "/")
        if self.waiting:
            return None
        node = self.stage.origin.node
        return PlannedStage(
            self.stage.index, self.stage.name, self.base, node.original, tuple(self.steps), self.config, self.author,
            frozenset(self.needs),
        )  # fmt: skip

    def onbuild(self) -> list[ins.Instruction]:
        triggers = self.config.get("OnBuild") or []
        if len(triggers) > MAX_ONBUILD:
            raise SyntaxProblem(f"the base image has more than {MAX_ONBUILD} ONBUILD triggers")
        found: list[ins.Instruction] = []
        for text in triggers:
            for node in parse(str(text)).nodes:
                if node.name in ("onbuild", "from", "maintainer"):
                    raise SyntaxProblem(f"{node.name.upper()} isn't allowed as an ONBUILD trigger")
                found.append(ins.parse_instruction(replace(node, line=self.stage.origin.node.line)))
        return found

    @property
    def env(self) -> dict[str, str]:
        return {**self.args, **self.image_env}

    def word(self, text: str) -> str:
        return self.planner.word(text, self.env, self.instruction)

    def apply(self, item: ins.Instruction, prefix: str) -> None:
        self.instruction = item
        try:
            getattr(self, "do_" + type(item).__name__.lower())(item, prefix)
        except SyntaxProblem as problem:
            problem.line = problem.line or item.node.line
            raise

    def add(self, operation: Operation, prefix: str, history: str = "") -> None:
        node = self.instruction.node
        text = prefix + " ".join(node.original.split("\n", 1)[0].split())
        flags = " ".join(node.flags)
        if node.heredocs or flags:
            text = prefix + node.original
        self.steps.append(Step(0, text, operation, self.remembered(operation, history or text), node.line))

    def remembered(self, operation: Operation, text: str) -> str:
        return classic_history(operation, text, self.shell()) if self.planner.request.classic else text

    def meta(self, prefix: str, history: str) -> None:
        self.add(Meta(history), prefix, history)

    # -- config only --

    def do_arg(self, item: ins.Arg, prefix: str) -> None:
        planner = self.planner
        shown, written = [], []
        for name, default in item.pairs:
            planner.consumed.add(name)
            value = planner.request.build_args.get(name)
            written.append(name if default is None else f"{name}={self.word(default)}")
            if value is None and default is not None:
                value = self.word(default)
            if value is None:
                value = planner.globals.get(name)
            if value is None:
                value = planner.predefined.get(name)
            if value is not None:
                self.args[name] = value
            shown.append(name if value is None or name in PROXY_ARGS else f"{name}={value}")
        # moby's own builder remembers what is written, BuildKit what was given.
        self.add(Meta("ARG " + " ".join(shown)), prefix, "ARG " + " ".join(written if planner.request.classic else shown))

    def do_env(self, item: ins.Env, prefix: str) -> None:
        pairs = [(self.word(k), self.word(v)) for k, v in item.pairs]
        self.image_env.update(pairs)
        self.meta(prefix, "ENV " + " ".join(f"{k}={v}" for k, v in pairs))

    def do_label(self, item: ins.Label, prefix: str) -> None:
        pairs = [(self.word(k), self.word(v)) for k, v in item.pairs]
        self.config["Labels"] = {**(self.config.get("Labels") or {}), **dict(pairs)}
        self.meta(prefix, "LABEL " + " ".join(f"{k}={v}" for k, v in pairs))

    def labels(self, labels: Mapping[str, str]) -> None:
        self.config["Labels"] = {**(self.config.get("Labels") or {}), **labels}
        text = "LABEL " + " ".join(f"{k}={v}" for k, v in sorted(labels.items()))
        self.steps.append(Step(0, text, Meta(text), self.remembered(Meta(text), text)))

    def do_maintainer(self, item: ins.Maintainer, prefix: str) -> None:
        self.author = item.name
        self.meta(prefix, f"MAINTAINER {item.name}")

    def do_command(self, item: ins.Command, prefix: str) -> None:
        args = [*self.shell(), *item.args] if item.shell_form and item.args else list(item.args)
        key = "Cmd" if item.node.name == "cmd" else "Entrypoint"
        self.config[key] = args or None
        if key == "Cmd":
            self.config["ArgsEscaped"] = True
        self.meta(prefix, f"{key.upper()} {_json(args)}")

    def do_expose(self, item: ins.Expose, prefix: str) -> None:
        words = [w for port in item.ports for w in self.planner.words(port, self.env, item)]
        ports = sorted({p for word in words for p in _ports(word)})
        self.config["ExposedPorts"] = {**(self.config.get("ExposedPorts") or {}), **{p: {} for p in ports}}
        self.meta(prefix, f"EXPOSE [{' '.join(ports)}]")

    def do_healthcheck(self, item: ins.Healthcheck, prefix: str) -> None:
        check: dict[str, Any] = {"Test": list(item.test)}
        times = (
            ("Interval", item.interval), ("Timeout", item.timeout), ("StartPeriod", item.start_period),
            ("StartInterval", item.start_interval), ("Retries", item.retries),
        )  # fmt: skip
        check |= {k: v for k, v in times if v}
        self.config["Healthcheck"] = check
        self.meta(prefix, f"HEALTHCHECK {_json(check)}")

    def do_onbuild(self, item: ins.Onbuild, prefix: str) -> None:
        self.config["OnBuild"] = [*(self.config.get("OnBuild") or []), item.expression]
        self.meta(prefix, f"ONBUILD {item.expression}")

    def shell(self) -> list[str]:
        return list(self.config.get("Shell") or ["/bin/sh", "-c"])

    def do_shell(self, item: ins.Shell, prefix: str) -> None:
        self.config["Shell"] = list(item.args)
        self.meta(prefix, f"SHELL {_json(list(item.args))}")

    def do_stopsignal(self, item: ins.StopSignal, prefix: str) -> None:
        signal = self.word(item.signal)
        if not re.fullmatch(r"(?i)(SIG)?[A-Z0-9+-]+|\d+", signal):
            raise SyntaxProblem(f"Invalid signal: {signal}", 0, item.signal)
        self.config["StopSignal"] = signal
        self.meta(prefix, f"STOPSIGNAL {signal}")

    def do_user(self, item: ins.User, prefix: str) -> None:
        self.config["User"] = self.word(item.user)
        self.meta(prefix, f"USER {self.config['User']}")

    def do_volume(self, item: ins.Volume, prefix: str) -> None:
        paths = [self.word(p).strip() for p in item.paths]
        if not all(paths):
            raise SyntaxProblem("VOLUME specified can not be an empty string")
        self.config["Volumes"] = {**(self.config.get("Volumes") or {}), **{p: {} for p in paths}}
        self.meta(prefix, f"VOLUME [{' '.join(paths)}]")

    # -- file system --

    def do_workdir(self, item: ins.Workdir, prefix: str) -> None:
        path = self.word(item.path)
        self.config["WorkingDir"] = _absolute(path, self.config.get("WorkingDir") or "/").rstrip("/") or "/"
        self.add(Workdir(self.config["WorkingDir"]), prefix, f"WORKDIR {self.config['WorkingDir']}")

    def origin(self, name: str) -> Origin:
        if not name:
            return Origin()
        named = self.planner.request.contexts.get(name)
        if named is not None and not named.startswith(IMAGE_CONTEXT):
            return Origin(context=name)
        if named is not None:
            name = named.removeprefix(IMAGE_CONTEXT)
            if self.planner.image(name, self.planner.platform) is None:
                self.waiting = True
            return Origin(image=name)
        stage = self.planner.stage_named(name, self.stage.index)
        if stage is not None:
            self.needs.add(stage)
            if self.planner.need(stage) is None:
                self.waiting = True
            return Origin(stage=stage)
        if self.planner.image(name, self.planner.platform) is None:
            self.waiting = True
        return Origin(image=name)

    def do_run(self, item: ins.Run, prefix: str) -> None:
        args, files = self.command(item)
        mounts = tuple(parse_mount(self.word(m)) for m in item.mounts)
        origins = tuple(self.origin(m.origin) for m in mounts)
        env = [f"{k}={v}" for k, v in self.image_env.items()]
        declared = {k: v for k, v in self.args.items() if k not in self.image_env}
        visible = [f"{k}={v}" for k, v in declared.items() if k not in PROXY_ARGS]
        given = {k: v for k, v in self.planner.request.build_args.items() if k in PROXY_ARGS and v is not None}
        hidden = [f"{k}={v}" for k, v in {**given, **{k: declared[k] for k in declared if k in PROXY_ARGS}}.items()]
        operation = Exec(
            args, tuple(env + visible), self.config.get("WorkingDir") or "/", self.config.get("User") or "",
            tuple(_absolute_mount(m, self.config.get("WorkingDir") or "/") for m in mounts), origins,
            item.network or self.planner.request.network, item.security, files, tuple(hidden),
            self.planner.request.extra_hosts,
        )  # fmt: skip
        shown = " ".join(args if not files else (*args[:-1], args[-1].split("\n", 1)[0]))
        count = f"|{len(visible)} {' '.join(visible)} " if visible else ""
        self.add(operation, prefix, f"RUN {count}{shown} # buildkit")

    def command(self, item: ins.Run) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
        """Heredocs: alone it is the script itself (its own interpreter after ``#!``); else the shell reads it."""
        if not item.shell_form:
            return item.args, ()
        line = item.args[0]
        if not item.heredocs:
            return (*self.shell(), line), ()
        first = item.heredocs[0]
        if len(item.heredocs) == 1 and re.fullmatch(r"\d*<<-?\s*['\"]?" + re.escape(first.name) + "['\"]?", line):
            content = first.content
            if first.chomp:
                content = re.sub(r"(?m)^\t+", "", content)
            if content.startswith("#!"):
                return (f"/dev/pipes/{first.name}",), ((first.name, content),)
            return (*self.shell(), content), ()
        bodies = "".join(f"{h.content}{h.name}\n" for h in item.heredocs)
        return (*self.shell(), f"{line}\n{bodies}"), ()

    def do_copy(self, item: ins.Copy, prefix: str) -> None:
        inline: list[tuple[str, str]] = []
        sources: list[str] = []
        for source in item.sources:
            word = source.lstrip("0123456789").lstrip("<-").strip("'\"")
            body = next((h for h in item.heredocs if h.name == word), None)
            if source.startswith("<<") and body is not None:
                text = re.sub(r"(?m)^\t+", "", body.content) if body.chomp else body.content
                inline.append((body.name, self.word(text) if body.expand else text))
            else:
                sources.append(self.word(source))
        target = self.word(item.target)
        if len(sources) + len(inline) > 1 and not target.endswith("/") and target not in (".", "..", "/"):
            raise SyntaxProblem(
                f"When using {item.node.name.upper()} with more than one source file, the destination must be a "
                "directory and end with a /", 0, item.target,
            )  # fmt: skip
        workdir = self.config.get("WorkingDir") or "/"
        absolute = _absolute(target, workdir)
        if target.endswith(("/", "/.")) or target in (".", ".."):
            absolute = absolute.rstrip("/") + "/"
        operation = Copy(
            tuple(sources), absolute, self.origin(self.word(item.origin)), tuple(inline), self.word(item.chown),
            self.word(item.chmod), tuple(self.word(e) for e in item.exclude), item.parents, item.link, item.add,
            item.unpack, self.word(item.checksum), item.keep_git_dir,
        )  # fmt: skip
        names = " ".join([*sources, *("<<" + name for name, _ in inline)])
        flags = "".join(f" --{f}={v}" for f, v in (("chown", operation.chown), ("chmod", operation.chmod)) if v)
        self.add(operation, prefix, f"{item.node.name.upper()}{flags} {names} {target} # buildkit")


def _absolute(path: str, workdir: str) -> str:
    return posixpath.normpath(posixpath.join("/", workdir, path)).replace("//", "/")


def _absolute_mount(mount: Mount, workdir: str) -> Mount:
    import msgspec

    return msgspec.structs.replace(mount, target=_absolute(mount.target, workdir)) if mount.target else mount


def _json(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


def _ports(word: str) -> list[str]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?(?:/(\w+))?", word)
    if not match:
        raise SyntaxProblem(f"invalid containerPort: {word}", 0, word)
    low, high, protocol = int(match[1]), int(match[2] or match[1]), (match[3] or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise SyntaxProblem(f"invalid proto: {protocol}", 0, word)
    if not 0 < low <= high <= 65535:
        raise SyntaxProblem(f"invalid port range: {word}", 0, word)
    return [f"{port}/{protocol}" for port in range(low, high + 1)]
