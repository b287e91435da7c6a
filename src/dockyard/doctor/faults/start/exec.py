"""Why a container did not start: nine causes behind four messages, told apart by the first bytes of the entry file.

The kernel answers ENOENT for a missing file, a missing ``#!`` program and a missing ELF loader alike, and ENOEXEC for
every unknown format (execve(2)); runtimes pass that on, so the message never says which. The files do.
"""

from __future__ import annotations

from collections.abc import Iterator

from dockyard.doctor.collect.forensics import EXEC_FAILURES, candidates, elf, failed_to_start, interpreter
from dockyard.doctor.facts import FileFact
from dockyard.doctor.finding import Confidence, Evidence, Finding, Fix
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import Container, View

MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 21: "ppc64le", 22: "s390x", 243: "riscv64"}
_RUNS = {"x86_64": {"x86_64", "i386"}, "aarch64": {"aarch64", "arm"}}
TITLES = {
    "CTR-02": "the entry file cannot be executed",
    "CTR-03": "the command is not in the image",
    "CTR-04": "the entry script has Windows line ends",
    "CTR-05": "the interpreter of the entry script is not in the image",
    "CTR-06": "the loader of the program is not in the image",
    "CTR-08": "the program is for another kind of CPU",
    "CTR-09": "the entry file has no format that the kernel knows",
    "CTR-10": "the entry file lies on a file system mounted noexec",
    "CTR-20": "a directory is mounted onto a file, or a file onto a directory",
    "CTR-22": "options stand after the image name",
    "BLD-08": "the user does not exist in the image",
    "INS-16": "a runtime or device driver is not registered",
}


def entry_of(view: View, container: Container) -> tuple[list[FileFact], FileFact | None]:
    """Places that were looked at and the entry file, None if there is none."""
    places = candidates(container.document, container.command[0])
    facts = [fact for place in places if (fact := view.facts.files.get(f"{container.id}:{place}"))]
    return facts, next((fact for fact in facts if not fact.error), None)


def explain_start(view: View) -> Iterator[Finding]:
    for container in view.containers:
        if failed_to_start(container.document) and (
            container.exit_code != 1 or container.error or _late(view, container)
        ):
            found = _by_error(view, container) or _by_entry(view, container) or _by_log(view, container)
            if found is not None:
                yield found


def _late(view: View, container: Container) -> str:
    """The runtime's own line in the log when execve failed after the container was made."""
    return view.log_line(container, r"exec.*(no such file or directory|exec format error|permission denied|not found)")


def _state(container: Container) -> str:
    return container.error.splitlines()[0][:200] if container.error else f"exit code {container.exit_code}"


def _found(rule: str, container: Container, evidence: list[Evidence], fix: str, **more: object) -> Finding:
    return finding(
        rule,
        TITLES[rule],
        container.object,
        f"{container.name} does not start: {_state(container)}",
        evidence,
        affects=[container.id],
        fix=Fix(fix),
        verify=f"docker start {container.name}",
        **more,  # type: ignore[arg-type]
    )


def _by_error(view: View, container: Container) -> Finding | None:
    """Causes that the engine's own error names without doubt."""
    error = container.error
    said = Evidence("api", f"GET /containers/{container.name}/json State.Error", error[:300])
    if "unable to find user" in error or "no matching entries in passwd" in error:
        user = str(container.config.get("User", ""))
        seen = Evidence("api", "Config.User", user, "a name in the image's /etc/passwd, or numbers")
        return _found(
            "BLD-08", container, [said, seen], "create the user in the last stage, or use numbers (1000:1000)"
        )
    if "unknown or invalid runtime" in error or "could not select device driver" in error:
        known = ", ".join(view.facts.engine.info.get("Runtimes") or {})
        seen = Evidence("api", "GET /info Runtimes", known, str(container.host_config.get("Runtime")))
        return _found("INS-16", container, [said, seen], "register the runtime in daemon.json, or install its toolkit")
    if "mount a directory onto a file" in error or "not a directory" in error:
        return _mismatch(view, container, said)
    return None


def _mismatch(view: View, container: Container, said: Evidence) -> Finding | None:
    for mount in container.mounts:
        source, target = str(mount.get("Source", "")), str(mount.get("Destination", ""))
        fact = view.facts.files.get(f"host:{source}")
        inside = view.facts.files.get(f"image:{container.id}:{target}")
        named = f'to rootfs at "{target}"' in said.observed or target in said.observed
        if fact is None or fact.error or not named:
            continue
        wanted = inside.kind if inside else "file" if fact.kind == "dir" else "dir"
        evidence = [said, Evidence("file", source, fact.kind, wanted)]
        cause = ["the file did not exist on the host, so the engine made a directory of that name"]
        return _found(
            "CTR-20",
            container,
            evidence,
            f"remove the directory {source}, create the file there (on the engine's host), start again",
            cause=cause if fact.kind == "dir" else [],
        )
    return None


def _by_entry(view: View, container: Container) -> Finding | None:
    places, entry = entry_of(view, container)
    command = container.command[0]
    if not places:
        return None
    if entry is None:
        looked = [Evidence("file", fact.path, fact.error, "an executable file") for fact in places[:3]]
        if any(fact.error != "ENOENT" for fact in places):
            return None
        if command.startswith("-"):
            hint = "put options such as -p before the image: docker run [OPTIONS] IMAGE [COMMAND]"
            return _found("CTR-22", container, [Evidence("api", "Cmd", " ".join(container.command))], hint)
        return _found("CTR-03", container, looked, f"install {command} in the image, or correct the command")
    if entry.kind != "file" or not entry.mode & 0o111:
        seen = entry.kind if entry.kind != "file" else f"mode {entry.mode:04o}"
        evidence = [Evidence("file", entry.path, seen, "a regular file with x")]
        fix = (
            "name the program, not a directory"
            if entry.kind == "dir"
            else f"COPY --chmod=0755, or chmod +x {entry.path}"
        )
        return _found("CTR-02", container, evidence, fix)
    if noexec := _noexec(view, container, entry.path):
        return _found("CTR-10", container, [noexec], "mount it without noexec, or run the program from the image")
    return _by_format(view, container, entry)


def _noexec(view: View, container: Container, path: str) -> Evidence | None:
    for mount in container.mounts:
        target, source = str(mount.get("Destination", "")), str(mount.get("Source", ""))
        if not path.startswith(target.rstrip("/") + "/") and path != target:
            continue
        disks = [disk for disk in view.facts.host.disks if f"{source}/".startswith(disk.path.rstrip("/") + "/")]
        best = max(disks, key=lambda disk: len(disk.path), default=None)
        if best is not None and "noexec" in best.options.split(","):
            return Evidence("file", f"mount options of {best.path}", best.options, "without noexec")
    return None


def _by_format(view: View, container: Container, entry: FileFact) -> Finding | None:
    head, path = entry.head, entry.path
    program = interpreter(head)
    first = head.split(b"\n", 1)[0]
    if head[:2] == b"#!":
        if first.endswith(b"\r"):
            seen = Evidence(
                "file", f"{path} line 1", repr(first.decode("utf-8", "replace")), "no \\r before the line end"
            )
            ruled = {"CTR-05": f"{program} is not what is missing: {program}\\r is"}
            fix = f"convert it: sed -i 's/\\r$//' {path.rpartition('/')[2]}; keep it so with .gitattributes (eol=lf)"
            return _found("CTR-04", container, [seen], fix, ruled_out=ruled)
        return _missing_program("CTR-05", view, container, entry, program, {"CTR-04": "line 1 has no \\r"})
    machine, loader = elf(head)
    if machine:
        name = MACHINES.get(machine, str(machine))
        host = view.facts.host.machine or str(view.facts.engine.info.get("Architecture", ""))
        handled = any(name in handler for handler in view.facts.host.binfmt)
        if host and name not in _RUNS.get(host, {host}) and not handled:
            evidence = [Evidence("file", f"{path} e_machine", name, host)]
            if not view.facts.host.binfmt:
                evidence.append(Evidence("file", "/proc/sys/fs/binfmt_misc", "no handler", f"a handler for {name}"))
            fix = f"pull or build for this platform (--platform), or install a binfmt handler for {name}"
            return _found("CTR-08", container, evidence, fix)
        return _missing_program("CTR-06", view, container, entry, loader, {"CTR-08": f"{name} runs here"})
    if container.error or container.exit_code in EXEC_FAILURES or _late(view, container):
        shown = "empty" if not entry.size else repr(head[:16])
        fix = "begin the script with #!/bin/sh, saved without byte order mark" if entry.size else "the file is empty"
        seen = Evidence("file", f"{path} first bytes", shown, "#! or an ELF header")
        return _found("CTR-09", container, [seen], fix) if _not_shell(head) else None
    return None


def _not_shell(head: bytes) -> bool:
    return head[:2] != b"#!" and head[:4] != b"\x7fELF"


def _missing_program(
    rule: str, view: View, container: Container, entry: FileFact, program: str, ruled: dict[str, str]
) -> Finding | None:
    fact = view.facts.files.get(f"{container.id}:{program}") if program else None
    if fact is None or fact.error != "ENOENT":
        return None
    what = "#! program" if rule == "CTR-05" else "PT_INTERP"
    evidence = [Evidence("file", f"{what} of {entry.path}", program), Evidence("file", program, "ENOENT", "a program")]
    fix = (
        f"install {program.rpartition('/')[2]} in the image, or write the script for /bin/sh"
        if rule == "CTR-05"
        else "build it statically, or on the C library of this base image (glibc and musl differ)"
    )
    return _found(rule, container, evidence, fix, ruled_out=ruled)


def _by_log(view: View, container: Container) -> Finding | None:
    """The entry is in order; a shell inside it reported the failure and ended with 126 or 127."""
    code = container.exit_code
    patterns = {127: r"not found", 126: r"permission denied"}
    line = view.log_line(container, patterns[code]) if code in patterns else ""
    if not line:
        return None
    rule = "CTR-03" if code == 127 else "CTR-02"
    seen = [Evidence("log", f"docker logs {container.name}", line), Evidence("api", "State.ExitCode", str(code), "0")]
    fix = "install that command in the image" if code == 127 else "make that file executable"
    return _found(rule, container, seen, fix, confidence=Confidence.LIKELY)


_NO_FILE = (r"no such file or directory", r"exec .*not found", r"executable file not found")
_FORMAT = (r"exec format error",)
_DENIED = (r"permission denied",)
_NEEDS = ("containers", "files")
_CAUSES = ("CTR-16", "CTR-17", "CMP-02", "CMP-10", "CTR-15")


def _rule(rule: str, explain: str, messages: tuple[str, ...], decides: str, first: bool = False) -> Rule:
    likes = tuple(other for other in TITLES if other != rule)
    detect = explain_start if first else None
    return Rule(rule, TITLES[rule], explain, detect, _NEEDS, causes=_CAUSES, lookalikes=likes, messages=messages,
                decides=decides)  # fmt: skip


RULES = (
    _rule(
        "CTR-02",
        "execve(2) answers EACCES for a file without x and for a directory; Docker makes exit 126 of it.",
        _DENIED,
        "mode bits of the entry file in the image",
        first=True,
    ),
    _rule(
        "CTR-03",
        "No directory of the image's PATH holds the command; Docker makes exit 127 of it.",
        _NO_FILE,
        "the PATH search in the image",
    ),
    _rule(
        "CTR-04",
        "The kernel reads '#!/bin/sh\\r' and looks for a program of that name, which does not exist.",
        _NO_FILE,
        "does line 1 end in \\r?",
    ),
    _rule(
        "CTR-05",
        "The script exists; what does not exist is the program of its #! line (bash on alpine).",
        _NO_FILE,
        "does the #! program exist in the image?",
    ),
    _rule(
        "CTR-06",
        "A dynamic program names its loader (PT_INTERP). Without it execve answers ENOENT for the program.",
        _NO_FILE,
        "does the PT_INTERP path exist in the image?",
    ),
    _rule(
        "CTR-08",
        "The ELF header names another CPU and no binfmt_misc handler takes it.",
        _FORMAT,
        "e_machine of the ELF header against uname -m",
    ),
    _rule(
        "CTR-09",
        "Neither #! at byte 0 nor an ELF header: no #! line, a byte order mark before it, or an empty file.",
        _FORMAT,
        "the first bytes of the file",
    ),
    _rule(
        "CTR-10",
        "execve answers EACCES on a file system that is mounted noexec, whatever the mode of the file.",
        _DENIED,
        "mount options of the file's file system",
    ),
    _rule(
        "CTR-20",
        "Both ends of a bind must be of one kind. When the host's file is missing, -v makes a directory.",
        (r"mount a directory onto a file", r"not a directory"),
        "the kind of both ends",
    ),
    _rule(
        "CTR-22",
        "Everything after the image name is the command, so an option there is taken for a program.",
        _NO_FILE,
        "does the command begin with '-'?",
    ),
    _rule(
        "BLD-08",
        "Names of users are looked up in the /etc/passwd of the image, not of the host.",
        (r"unable to find user", r"no matching entries in passwd"),
        "the image's /etc/passwd",
    ),
    _rule(
        "INS-16",
        "--runtime and --gpus name things that the engine must know at its start.",
        (r"unknown or invalid runtime", r"could not select device driver"),
        "Runtimes in GET /info",
    ),
)
