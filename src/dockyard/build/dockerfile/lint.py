"""Docker's build checks: 22 rules over a parsed Dockerfile. Pure; names, sentences and addresses are Docker's.

What only the base image can tell (its variables, its platform) is judged where the caller knows the image, else left.
Source: docs.docker.com/reference/build-checks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dockyard.errors import DockyardError
from dockyard.oci.reference import parse_reference

from . import instructions as ins
from .parser import Dockerfile, SyntaxProblem
from .patterns import Patterns, clean
from .suggest import did_you_mean
from .words import ExpandError, expand

__all__ = ["DESCRIPTIONS", "Base", "Options", "Violation", "lint", "options_of", "url_of"]

DESCRIPTIONS = {
    "StageNameCasing": "Stage names should be lowercase",
    "FromAsCasing": "The 'as' keyword should match the case of the 'from' keyword",
    "NoEmptyContinuation": "Empty continuation lines will become errors in a future release",
    "ConsistentInstructionCasing":
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    "DuplicateStageName": "Stage names should be unique",
    "ReservedStageName": "Reserved words should not be used as stage names",
    "JSONArgsRecommended":
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    "MaintainerDeprecated":
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "UndefinedArgInFrom": "FROM command must use declared ARGs",
    "WorkdirRelativePath":
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base "
        "image changes",
    "UndefinedVar": "Variables should be defined before their use",
    "MultipleInstructionsDisallowed":
        "Multiple instructions of the same type should not be used in the same stage",
    "LegacyKeyValueFormat": "Legacy key/value format with whitespace separator should not be used",
    "InvalidBaseImagePlatform": "Base image platform does not match expected target platform",
    "RedundantTargetPlatform":
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    "SecretsUsedInArgOrEnv": "Sensitive data should not be used in the ARG or ENV commands",
    "InvalidDefaultArgInFrom": "Default value for global ARG results in an empty or invalid base image name",
    "FromPlatformFlagConstDisallowed": "FROM --platform flag should not use a constant value",
    "CopyIgnoredFile": "Attempting to Copy file that is excluded by .dockerignore",
    "InvalidDefinitionDescription":
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is "
        "not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    "ExposeProtoCasing": "Protocol in EXPOSE instruction should be lowercase",
    "ExposeInvalidFormat":
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
        "future release",
}  # fmt: skip
EXPERIMENTAL = frozenset({"InvalidDefinitionDescription"})
RESERVED = frozenset({"context", "scratch"})
PLATFORM_ARGS = tuple(f"{p}{n}" for p in ("TARGET", "BUILD") for n in ("PLATFORM", "OS", "ARCH", "VARIANT"))
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)  # fmt: skip
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_PLATFORM = re.compile(r"[a-z0-9_.-]+(?:/[a-z0-9_.-]+){0,2}\Z", re.IGNORECASE)
_DEFAULTED = re.compile(r"\$\{(\w+):?[-+?]")
"""``${v:-x}`` says itself what is to be done without a value."""
_CHECK = re.compile(r"check[ \t]*=[ \t]*(\S+)\Z")


@dataclass(frozen=True, slots=True)
class Violation:
    """``line`` and ``end_line`` count from 1."""

    rule: str
    message: str
    line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class Options:
    """What ``# check=skip=A,B;error=true`` asks for."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def wants(self, rule: str) -> bool:
        if "all" in self.skip or rule in self.skip:
            return False
        return rule not in EXPERIMENTAL or bool({"all", rule} & self.experimental)


@dataclass(frozen=True, slots=True)
class Base:
    """What is known of a stage's base image."""

    variables: frozenset[str] = frozenset()
    platform: str = ""
    expected: str = ""


def url_of(rule: str) -> str:
    if rule == "InvalidBaseImagePlatform":
        return ""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=JSON)(?=[A-Z])", "-", rule).lower()
    return f"https://docs.docker.com/go/dockerfile/rule/{words}/"


def options_of(text: str) -> Options:
    """Raises SyntaxProblem. "" is everything but the experimental."""
    found: dict[str, str] = {}
    for part in text.strip().split(";") if text.strip() else ():
        key, equals, value = part.partition("=")
        if not equals or key.strip() not in ("skip", "experimental", "error"):
            raise SyntaxProblem(f"invalid check option {part.strip()!r}", 1, part.strip())
        found[key.strip()] = value.strip()
    if found.get("error", "false").lower() not in ("true", "false", "1", "0"):
        raise SyntaxProblem(f"failed to parse check option {found['error']!r}", 1, found["error"])
    sets = [frozenset(rule.strip() for rule in found.get(key, "").split(",") if rule) for key in ("skip", "experimental")]
    return Options(sets[0], sets[1], found.get("error", "").lower() in ("true", "1"))


def lint(
    dockerfile: Dockerfile, options: Options, *, ignore: Patterns | None = None, bases: Mapping[int, Base] | None = None
) -> list[Violation]:
    """In the order of lines. ``bases``: what is known of the base image of a stage, by index. Raises SyntaxProblem."""
    globals_, stages = ins.split_stages(dockerfile)
    linter = _Linter(dockerfile, options, ignore, bases or {})
    linter.whole_file(globals_, stages)
    for stage in stages:
        linter.stage(stage)
    return sorted(linter.found, key=lambda item: (item.line, item.rule))


def _typed(item: ins.Instruction) -> str:
    """The instruction as the author wrote it."""
    words = item.node.original.split(None, 1)
    return words[0] if words else item.node.name


@dataclass
class _Linter:
    dockerfile: Dockerfile
    options: Options
    ignore: Patterns | None
    bases: Mapping[int, Base]
    found: list[Violation] = field(default_factory=list)
    workdir_set: dict[str, bool] = field(default_factory=dict)
    variables: dict[str, set[str] | None] = field(default_factory=dict)
    """By stage name, those known at its end; None where the base's are not known."""

    def tell(self, rule: str, message: str, item: ins.Instruction | None, line: int = 0) -> None:
        options = self.options
        for comment in item.node.comments if item is not None else ():
            if own := _CHECK.match(comment):
                options = options_of(own[1])
        if options.wants(rule) and self.options.wants(rule):
            first = item.node.line if item is not None else line
            last = (item.node.end_line if item is not None else 0) or first
            self.found.append(Violation(rule, message, first, last))

    # -- the file as a whole --

    def whole_file(self, globals_: tuple[ins.Arg, ...], stages: tuple[ins.Stage, ...]) -> None:
        for line in self.dockerfile.empty_continuations:
            self.tell("NoEmptyContinuation", "Empty continuation line", None, line)
        self._casing([item for stage in stages for item in (stage.origin, *stage.instructions)])
        seen: set[str] = set()
        for stage in stages:
            self._stage_name(stage.origin, seen)
        self._froms(globals_, stages)
        for arg in globals_:
            self._arg(arg)

    def _casing(self, items: list[ins.Instruction]) -> None:
        typed = [(_typed(item), item) for item in items]
        lower = sum(name == name.lower() for name, _ in typed)
        upper = sum(name == name.upper() for name, _ in typed)
        for name, item in typed:
            wanted = name.lower() if lower > upper else name.upper()
            if name != wanted:
                which = "lowercase" if lower > upper else "uppercase"
                text = f"Command '{name}' should match the case of the command majority ({which})"
                self.tell("ConsistentInstructionCasing", text, item)

    def _stage_name(self, origin: ins.From, seen: set[str]) -> None:
        if not origin.alias:
            return
        words = origin.node.original.split()
        keyword, typed = words[-2], words[-1]
        if typed != typed.lower():
            self.tell("StageNameCasing", f"Stage name '{typed}' should be lowercase", origin)
        if keyword != (keyword.lower() if words[0] == words[0].lower() else keyword.upper()):
            text = f"'{keyword}' and '{words[0]}' keywords' casing do not match"
            self.tell("FromAsCasing", text, origin)
        if origin.alias in RESERVED:
            text = f'Stage name should not use the same name as reserved stage "{origin.alias}"'
            self.tell("ReservedStageName", text, origin)
        if origin.alias in seen:
            text = f'Duplicate stage name "{origin.alias}", stage names should be unique'
            self.tell("DuplicateStageName", text, origin)
        seen.add(origin.alias)
        self._description("FROM", origin.alias, origin)

    def _froms(self, globals_: tuple[ins.Arg, ...], stages: tuple[ins.Stage, ...]) -> None:
        known = dict.fromkeys(PLATFORM_ARGS, "x")
        declared = [name for arg in globals_ for name, _ in arg.pairs]
        defaults = dict(known)
        for arg in globals_:
            for name, value in arg.pairs:
                if value is not None:
                    defaults[name] = self._expanded(value, defaults)[0]
        for stage in stages:
            origin = stage.origin
            for word in (origin.image, origin.platform):
                for name in sorted(self._expanded(word, known)[1] - {*declared, *PLATFORM_ARGS}):
                    text = f"FROM argument '{name}' is not declared{did_you_mean(name, declared)}"
                    self.tell("UndefinedArgInFrom", text, origin)
            if "$" in origin.image and not _is_reference(self._expanded(origin.image, defaults)[0]):
                text = f"Default value for ARG {origin.image} results in empty or invalid base image name"
                self.tell("InvalidDefaultArgInFrom", text, origin)
            self._platform(origin, stage.name)

    def _platform(self, origin: ins.From, stage_name: str) -> None:
        platform = origin.platform
        if platform in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
            text = f"Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
            self.tell("RedundantTargetPlatform", text, origin)
        elif platform and "$" not in platform and _PLATFORM.match(platform):
            parts = platform.split("/")
            if not any(part in stage_name for part in parts[:2]):
                text = f'FROM --platform flag should not use constant value "{platform}"'
                self.tell("FromPlatformFlagConstDisallowed", text, origin)

    def _description(self, instruction: str, name: str, item: ins.Instruction) -> None:
        comments = [text for text in item.node.comments if not _CHECK.match(text)]
        if comments and not any(text.startswith(f"{name} ") for text in comments):
            text = f"Comment for {instruction} should follow the format: `# {name} <description>`"
            self.tell("InvalidDefinitionDescription", text, item)

    # -- one stage --

    def stage(self, stage: ins.Stage) -> None:
        parent = stage.origin.image.lower()
        variables = self.variables.get(parent)
        if parent not in self.variables and (base := self.bases.get(stage.index)) is not None:
            variables = set(base.variables)
            if base.platform and base.expected and base.platform != base.expected:
                text = (f'Base image {stage.origin.image} was pulled with platform "{base.platform}", '
                        f'expected "{base.expected}" for current build')  # fmt: skip
                self.tell("InvalidBaseImagePlatform", text, stage.origin)
        elif stage.origin.image == "scratch":
            variables = {"PATH"}
        walk = _Walk(None if variables is None else {*variables}, self.workdir_set.get(parent, False))
        for item in stage.instructions:
            self._instruction(item, walk)
        for name in {stage.name, stage.origin.alias} - {""}:
            self.variables[name], self.workdir_set[name] = walk.variables, walk.workdir_set

    def _instruction(self, item: ins.Instruction, walk: _Walk) -> None:
        name = _typed(item)
        if walk.variables is not None:
            self._undefined(item, walk.variables)
        if isinstance(item, ins.Arg):
            self._arg(item)
            walk.define(pair[0] for pair in item.pairs)
        elif isinstance(item, ins.Env | ins.Label):
            self._pairs(item, walk)
        elif isinstance(item, ins.Maintainer):
            self.tell("MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label", item)
        elif isinstance(item, ins.Workdir):
            if not item.path.startswith(("/", "$")) and not walk.workdir_set:
                text = f'Relative workdir "{item.path}" can have unexpected results if the base image changes'
                self.tell("WorkdirRelativePath", text, item)
            walk.workdir_set = walk.workdir_set or item.path.startswith("/")
        elif isinstance(item, ins.Shell):
            walk.shell_set = True
        elif isinstance(item, ins.Copy):
            self._copied(item)
        elif isinstance(item, ins.Expose):
            self._exposed(item)
        if isinstance(item, ins.Command) and item.shell_form and item.args and not walk.shell_set:
            text = f"JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
            self.tell("JSONArgsRecommended", text, item)
        if isinstance(item, ins.Command | ins.Healthcheck):
            before = walk.last.get(item.node.name)
            if before is not None:
                text = (f"Multiple {name} instructions should not be used in the same stage because only the last one "
                        "will be used")  # fmt: skip
                self.tell("MultipleInstructionsDisallowed", text, before)
            walk.last[item.node.name] = item

    def _arg(self, item: ins.Arg) -> None:
        for name, _ in item.pairs:
            self._secret("ARG", name, item)
        if len(item.pairs) == 1:
            self._description("ARG", item.pairs[0][0], item)

    def _pairs(self, item: ins.Env | ins.Label, walk: _Walk) -> None:
        if item.node.args[2:3] == ("",):
            name = _typed(item)
            text = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
            self.tell("LegacyKeyValueFormat", text, item)
        if isinstance(item, ins.Env):
            for key, _ in item.pairs:
                self._secret("ENV", key, item)
            walk.define(key for key, _ in item.pairs)

    def _secret(self, instruction: str, key: str, item: ins.Instruction) -> None:
        if _SECRET.search(key) and not _NO_SECRET.search(key):
            text = f'Do not use ARG or ENV instructions for sensitive data ({instruction} "{key}")'
            self.tell("SecretsUsedInArgOrEnv", text, item)

    def _copied(self, item: ins.Copy) -> None:
        if self.ignore is None or self.ignore.has_negation or item.origin:
            return
        for source in item.sources:
            if source.startswith(("<<", "http://", "https://", "git@")) or "$" in source:
                continue
            path = clean(source)
            if path != "." and self.ignore.match(path):
                what = "Add" if item.add else "Copy"
                text = f'Attempting to {what} file "{path}" that is excluded by .dockerignore'
                self.tell("CopyIgnoredFile", text, item)

    def _exposed(self, item: ins.Expose) -> None:
        for port in item.ports:
            place, _, protocol = port.partition("/")
            if protocol != protocol.lower():
                text = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
                self.tell("ExposeProtoCasing", text, item)
            if ":" in place:
                text = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                self.tell("ExposeInvalidFormat", text, item)

    def _undefined(self, item: ins.Instruction, variables: set[str]) -> None:
        known = dict.fromkeys(variables, "x")
        missing: set[str] = set()
        for word in _expanded_words(item):
            missing |= self._expanded(word, known)[1]
        for name in sorted(missing):
            near = did_you_mean(name, variables).replace("mean ", "mean $")
            self.tell("UndefinedVar", f"Usage of undefined variable '${name}'{near}", item)

    def _expanded(self, word: str, env: Mapping[str, str]) -> tuple[str, set[str]]:
        try:
            done = expand(word, env, self.dockerfile.escape)
        except ExpandError:
            return "", set()
        return done.text, done.missing - set(_DEFAULTED.findall(word))


@dataclass
class _Walk:
    """What the instructions of a stage have said so far."""

    variables: set[str] | None
    workdir_set: bool
    shell_set: bool = False
    last: dict[str, ins.Instruction] = field(default_factory=dict)

    def define(self, names: Any) -> None:
        if self.variables is not None:
            self.variables |= set(names)


def _expanded_words(item: ins.Instruction) -> Iterator[str]:
    """The words in which the builder replaces variables."""
    if isinstance(item, ins.Env | ins.Label):
        for key, value in item.pairs:
            yield from (key, value)
    elif isinstance(item, ins.Copy):
        yield from (*item.sources, item.target, item.chown, item.chmod)
    elif isinstance(item, ins.Workdir):
        yield item.path
    elif isinstance(item, ins.Expose):
        yield from item.ports
    elif isinstance(item, ins.User):
        yield item.user
    elif isinstance(item, ins.Volume):
        yield from item.paths
    elif isinstance(item, ins.StopSignal):
        yield item.signal


def _is_reference(text: str) -> bool:
    try:
        parse_reference(text)
    except DockyardError:
        return False
    return True
