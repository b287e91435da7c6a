"""Why a container's program cannot be run, in words that name the cause and the cure. Pure: ``explain(evidence)``.

The kernel says ENOENT for four different things (no program, no interpreter, no loader, a carriage return at the end of
``#!/bin/sh``) and ENOEXEC for three more. The evidence tells them apart.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from dockyard.runtime.evidence import Evidence, Program, parse_shebang

_FOREIGN = (
    (b"MZ", "a Windows program"),
    (b"\xcf\xfa\xed\xfe", "a macOS program"),
    (b"\xca\xfe\xba\xbe", "a macOS or Java program"),
    (b"PK\x03\x04", "a zip or jar archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"!<arch>", "a static library or a .deb package"),
)
_RUNS_ON = {"amd64": ("amd64", "386"), "arm64": ("arm64", "arm"), "s390x": ("s390x",), "ppc64": ("ppc64",)}
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Explanation:
    """``cause`` is one of a fixed set of words; ``sentence`` says what is, ``remedy`` what to do."""

    cause: str
    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.sentence}; {self.remedy}"


def explain(evidence: Evidence) -> Explanation | None:
    """None if nothing is wrong with what the evidence shows."""
    if evidence.cwd_kind not in ("directory", "missing"):
        return Explanation(
            "cwd", f"the working directory {evidence.cwd} is no directory", "change WORKDIR of the image, or use -w"
        )
    return (
        _explain_absence(evidence)
        or _explain_file(evidence.program, evidence)
        or _explain_script(evidence)
        or _explain_binary(evidence)
    )


def _explain_absence(evidence: Evidence) -> Explanation | None:
    program, name = evidence.program, evidence.argv[0]
    if program.kind != "missing":
        return None
    if " " in name.strip():
        return Explanation(
            "missing",
            f'there is no file named "{name}": the whole command was given as one word',
            'give each word of its own: ["nginx", "-g", "daemon off;"], or use the shell form without brackets',
        )
    if "/" in name:
        return Explanation(
            "missing",
            f"{program.path} is not in the image (a bind mount over its directory would hide it)",
            "check ENTRYPOINT and CMD, and COPY's target; `docker run --entrypoint ls IMAGE -l "
            f"{posixpath.dirname(program.path) or '/'}` shows what is there",
        )
    return Explanation(
        "missing",
        f"no {name} in {evidence.path or 'an empty PATH'}",
        "install it in the image, give its full path, or set PATH with ENV",
    )


def _explain_file(program: Program, evidence: Evidence) -> Explanation | None:
    if program.kind == "directory":
        return Explanation("directory", f"{program.path} is a directory", "name the program inside it")
    if program.kind == "special":
        return Explanation("special", f"{program.path} is neither a file nor a directory", "name a program")
    if not _may_execute(program, evidence.user):
        who = f"uid {evidence.user[0]}" if evidence.user[0] and program.mode & 0o111 else "anybody"
        return Explanation(
            "no-x",
            f"{program.path} may not be executed by {who} (mode {program.mode:04o})",
            f"add `RUN chmod +x {program.path}` or COPY --chmod=755",
        )
    if program.noexec:
        return Explanation(
            "noexec",
            f"{program.path} lies on a file system that is mounted noexec",
            "mount it with exec, or copy the program into the image",
        )
    return None


def _may_execute(program: Program, user: tuple[int, int, tuple[int, ...]]) -> bool:
    uid, gid, groups = user
    if uid == 0:
        return bool(program.mode & 0o111)
    shift = 6 if uid == program.uid else 3 if program.gid in (gid, *groups) else 0
    return bool(program.mode >> shift & 1)


def _explain_script(evidence: Evidence) -> Explanation | None:
    program, words = evidence.program, parse_shebang(evidence.program.head)
    if program.head.startswith(_BOM + b"#!"):
        remedy = f"remove it (`sed -i '1s/^\\xEF\\xBB\\xBF//' {program.path}`)"
        return Explanation("bom", f"{program.path} begins with a byte order mark before #!", remedy)
    if not words:
        return None
    if words[-1].endswith("\r"):
        line = " ".join(words).rstrip("\r")
        return Explanation(
            "crlf",
            f'{program.path} has Windows line ends, so that it asks for "{line}\\r"',
            f"convert it (`sed -i 's/\\r$//' {program.path}`), and set `*.sh text eol=lf` in .gitattributes",
        )
    interpreter = evidence.interpreter
    assert interpreter is not None
    if interpreter.kind == "missing":
        return Explanation(
            "no-interpreter",
            f"{program.path} is to be run by {words[0]}, which is not in the image",
            f"install {posixpath.basename(words[0])}, or change the first line of {program.path}",
        )
    if (wrong := _explain_file(interpreter, evidence)) is not None:
        return Explanation(wrong.cause, f"the interpreter of {program.path}: {wrong.sentence}", wrong.remedy)
    if evidence.env_target is not None and evidence.env_target.kind == "missing":
        name = evidence.env_target.path
        return Explanation(
            "no-interpreter",
            f"{program.path} is to be run by {name}, which is not in {evidence.path or 'an empty PATH'}",
            f"install {name}, or change the first line of {program.path}",
        )
    return None


def _explain_binary(evidence: Evidence) -> Explanation | None:
    final = evidence.env_target or evidence.interpreter or evidence.program
    if final.elf is None:
        return _explain_no_binary(final)
    if final.elf.arch not in _RUNS_ON.get(evidence.arch, (evidence.arch,)):
        return Explanation(
            "wrong-cpu",
            f"{final.path} is built for {final.elf.arch}, and this host is {evidence.arch}",
            f"use an image for linux/{evidence.arch} (docker build --platform), or register an emulator (binfmt_misc)",
        )
    loader = evidence.loader
    if loader is not None and loader.kind != "file":
        libc = "musl (Alpine)" if "musl" in loader.path else "glibc (Debian and most others)"
        return Explanation(
            "no-loader",
            f"{final.path} is built for {libc}: its loader {loader.path} is not in the image",
            "build it in an image of the same family, or link it statically (CGO_ENABLED=0 in Go)",
        )
    if evidence.missing_libraries:
        library, user = evidence.missing_libraries[0]
        more = len(evidence.missing_libraries) - 1
        return Explanation(
            "no-library",
            f"{user} needs {library}, which is not in the image" + (f" (and {more} more)" if more else ""),
            "install the package that has it, or set LD_LIBRARY_PATH to where it is",
        )
    return None


def _explain_no_binary(program: Program) -> Explanation | None:
    if not program.size:
        return Explanation("empty", f"{program.path} is empty", "check how it was copied into the image")
    for magic, what in _FOREIGN:
        if program.head.startswith(magic):
            return Explanation("foreign", f"{program.path} is {what}", "use a Linux program in its place")
    if program.head.startswith(b"\x7fELF"):
        return Explanation("damaged", f"{program.path} is a damaged ELF file", "check how it was copied into the image")
    if program.head.startswith((b"#!", _BOM)):
        return None
    return Explanation(
        "no-shebang",
        f"{program.path} is text without a #! line, so the kernel does not know what runs it",
        "begin it with #!/bin/sh, or name the interpreter in the command",
    )
