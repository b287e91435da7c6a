"""Builds, from the Dockerfile and its directory alone: sources that are not there, big contexts, stale package lists."""

from __future__ import annotations

import difflib
import fnmatch
import re
import shlex
from collections.abc import Iterator

from dockyard.doctor.finding import Evidence, Finding, Fix, Object, Severity
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import View

BIG_CONTEXT = 500 << 20
_GLOB = re.compile(r"[*?\[$]")


def instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, instruction and its text, continuation lines joined, comments left out."""
    start, joined = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not joined and (not line.strip() or line.lstrip().startswith("#")):
            continue
        start = start or number
        if line.rstrip().endswith("\\"):
            joined += line.rstrip()[:-1] + " "
            continue
        word, _, rest = (joined + line).strip().partition(" ")
        yield start, word.upper(), rest.strip()
        start, joined = 0, ""


def _text(view: View, name: str) -> str | None:
    fact = view.facts.files.get(f"build:{name}")
    return None if fact is None or fact.error else fact.head.decode("utf-8", "replace")


def ignored_by(path: str, patterns: list[str]) -> str:
    """The pattern of .dockerignore that leaves ``path`` out, empty if none; the last match wins, ! takes back."""
    decided = ""
    for raw in patterns:
        back, pattern = raw.startswith("!"), raw.lstrip("!").strip("/")
        parts = path.split("/")
        prefixes = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        if pattern and any(fnmatch.fnmatchcase(prefix, pattern.removeprefix("**/")) for prefix in prefixes):
            decided = "" if back else raw
    return decided


def _sources(rest: str) -> list[str]:
    try:
        words = [word for word in shlex.split(rest) if not word.startswith("--")]
    except ValueError:
        return []
    if rest.startswith("["):
        words = [word.strip("[],\"' ") for word in rest.split(",")]
    return [word for word in words[:-1] if not word.startswith(("http://", "https://", "git@", "<<"))]


def missing_sources(view: View) -> Iterator[Finding]:
    text = _text(view, "Dockerfile")
    ignore = [line.strip() for line in (_text(view, ".dockerignore") or "").splitlines()]
    patterns = [line for line in ignore if line and not line.startswith("#")]
    names = [key.removeprefix("context:") for key in view.facts.files if key.startswith("context:")]
    for number, word, rest in instructions(text or ""):
        if word not in ("COPY", "ADD") or "--from=" in rest:
            continue
        for source in _sources(rest):
            clean = source.removeprefix("./").strip("/")
            if not clean or clean == "." or _GLOB.search(clean):
                continue
            found = _missing(clean, number, f"{word} {rest}", names, patterns)
            if found is not None:
                yield found


def _missing(clean: str, number: int, line: str, names: list[str], patterns: list[str]) -> Finding | None:
    pattern = ignored_by(clean, patterns)
    if clean in names and not pattern:
        return None
    seen = [Evidence("file", f"Dockerfile line {number}", line)]
    if clean.startswith(".."):
        seen.append(Evidence("file", clean, "outside the build directory", "inside"))
        fix = "build from the directory above (docker build -f DIR/Dockerfile ..), or copy the file in"
    elif pattern:
        seen.append(Evidence("file", ".dockerignore", pattern, f"a rule that keeps {clean}"))
        fix = f"add !{clean} below that line"
    else:
        near = [name for name in names if name.lower() == clean.lower()] or difflib.get_close_matches(clean, names, 1)
        seen.append(Evidence("file", clean, "absent", near[0] if near else "a file of that name"))
        fix = f"did you mean {near[0]}?" if near else "create it, or correct the path (relative to the build directory)"
    return finding("BLD-01", "a file to copy is not in the build context", Object("build", clean),
                   '"failed to compute cache key: not found" / "COPY failed: no such file"', seen, fix=Fix(fix))  # fmt: skip


_NOT_FOUND = re.compile(
    r"(?:(?:sh|bash|ash)(?:: line)?(?:: \d+)?: |exec: \"?)(?P<tool>[\w./+-]+)\"?: (?:command )?(?:executable file )?not found"
)
_CODE = re.compile(r"(?:non-zero code: |exit code: )127")


def missing_tool(view: View) -> Iterator[Finding]:
    """From the words of a build that ended in 127: the shell names what it did not find."""
    code, tool = _CODE.search(view.facts.said), _NOT_FOUND.search(view.facts.said)
    if code is None:
        return
    name = tool["tool"] if tool else "a program"
    yield finding("BLD-04", "a RUN calls a program that is not in the stage", Object("build", "RUN"),
                  f"{name} is not found (exit 127)",
                  [Evidence("probe", "the build's answer", code[0], "0")]
                  + ([Evidence("probe", "the build's answer", tool[0])] if tool else []),
                  fix=Fix(f"install {name} in an earlier RUN, or take it with COPY --from from a stage that has it"))  # fmt: skip


_PLATFORM = re.compile(r"--platform=(?P<platform>[a-z0-9]+/[a-z0-9]+)")


def foreign_platform(view: View) -> Iterator[Finding]:
    """A stage for another kind of CPU that runs something, and no emulator for it."""
    runnable = (_text(view, "platforms") or "").split()
    known = {"/".join(item.split("/")[:2]) for item in runnable}
    stage: tuple[int, str] | None = None
    for number, word, rest in instructions(_text(view, "Dockerfile") or ""):
        if word == "FROM":
            named = _PLATFORM.search(rest)
            stage = (number, named["platform"]) if named and named["platform"] not in known else None
        elif word == "RUN" and stage and runnable:
            line, platform = stage
            seen = [Evidence("file", f"Dockerfile line {line}", f"--platform={platform}", f"--platform={runnable[0]}")]
            if not _text(view, "emulators"):
                seen.append(Evidence("file", "/proc/sys/fs/binfmt_misc", "no handler", f"a handler for {platform}"))
            yield finding("BLD-06", "a stage for another kind of CPU runs programs", Object("build", f"line {number}"),
                          f'RUN ends with "exec format error": this machine runs {", ".join(runnable)}', seen,
                          fix=Fix(f"take --platform off, or --platform=$BUILDPLATFORM for a stage that only makes files; or "
                                  f"install an emulator for {platform} (Debian: qemu-user-static)"))  # fmt: skip
            stage = None


def big_context(view: View) -> Iterator[Finding]:
    facts = {key.removeprefix("context:"): fact for key, fact in view.facts.files.items() if key.startswith("context:")}
    ignore = [line.strip() for line in (_text(view, ".dockerignore") or "").splitlines() if line.strip()]
    sizes: dict[str, int] = {}
    for path, fact in facts.items():
        if fact.kind == "file" and not ignored_by(path, ignore):
            first = path.split("/")[0]
            sizes[first] = sizes.get(first, 0) + fact.size
    total = sum(sizes.values())
    if total < BIG_CONTEXT:
        return
    top = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    seen = [Evidence("file", "size of the context", f"{total >> 20} MiB", f"below {BIG_CONTEXT >> 20} MiB"),
            Evidence("file", "biggest", ", ".join(f"{name} {size >> 20} MiB" for name, size in top))]  # fmt: skip
    yield finding("BLD-02", "the build context is big", Object("build", "context"), '"transferring context" takes minutes',
                  seen, severity=Severity.RISK, fix=Fix(f"list what the build does not need in .dockerignore ({top[0][0]}?)"))  # fmt: skip


def stale_lists(view: View) -> Iterator[Finding]:
    updated = 0
    for number, word, rest in instructions(_text(view, "Dockerfile") or ""):
        if word == "FROM":
            updated = 0
        if word != "RUN":
            continue
        has_update, has_install = (
            ("apt-get update" in rest or "apt update" in rest),
            re.search(r"apt(-get)? .*install", rest),
        )
        if has_install and not has_update and updated:
            seen = [Evidence("file", f"Dockerfile line {updated}", "apt-get update alone"),
                    Evidence("file", f"Dockerfile line {number}", rest[:120], "update and install in one RUN")]  # fmt: skip
            yield finding("BLD-03", "package lists come from an old layer", Object("build", f"line {number}"),
                          '"Failed to fetch ... 404 Not Found" once the archive has moved on', seen,
                          severity=Severity.RISK, fix=Fix("RUN apt-get update && apt-get install -y ... in one step"))  # fmt: skip
        if has_update and not has_install:
            updated = number


_NEEDS = ("files",)
RULES = (
    Rule(
        "BLD-06",
        "a stage for another kind of CPU runs programs",
        "RUN executes the stage's own programs; those of another CPU need an emulator that the kernel knows (binfmt_misc).",
        foreign_platform,
        _NEEDS,
        lookalikes=("CTR-08", "CTR-09"),
        messages=(r"exec format error",),
        decides="dockyard doctor build DIR: --platform of the stage against /proc/sys/fs/binfmt_misc",
    ),
    Rule(
        "BLD-01",
        "a file to copy is not in the build context",
        "COPY sees only the build directory, less what .dockerignore leaves out; names are case-sensitive.",
        missing_sources,
        _NEEDS,
        messages=(r"failed to compute cache key", r"COPY failed", r"forbidden path outside the build context"),
        decides="dockyard doctor build DIR",
    ),
    Rule(
        "BLD-02",
        "the build context is big",
        "Everything not ignored is sent to the engine.",
        big_context,
        _NEEDS,
        severity=Severity.RISK,
        messages=(r"transferring context", r"Sending build context"),
        decides="dockyard doctor build DIR",
    ),
    Rule(
        "BLD-04",
        "a RUN calls a program that is not in the stage",
        "127 is the shell's word for a program that it does not find.",
        missing_tool,
        (),
        messages=(r"(non-zero code: |exit code: )127",),
        decides="the shell's line before the code, and PATH in the stage",
    ),
    Rule(
        "BLD-03",
        "package lists come from an old layer",
        "The layer of `apt-get update` is cached for ever.",
        stale_lists,
        _NEEDS,
        severity=Severity.RISK,
        messages=(r"Failed to fetch .*404",),
        decides="dockyard doctor build DIR",
    ),
)
