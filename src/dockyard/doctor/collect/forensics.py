"""Which files decide why a container did not start, and reading them.

What is read: the entry file (by PATH of the image), the interpreter of its first line or of its ELF header, the tool of
a failing health check, both ends of binds. Planning is pure; reading goes through the archive API and the host's root.
"""

from __future__ import annotations

import shlex
import struct
from collections.abc import Iterator
from typing import Any

from dockyard.client import Client
from dockyard.doctor.collect.files import container_file, host_file, walk_parts
from dockyard.doctor.facts import FileFact
from dockyard.doctor.view import when

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SOON = 2.0
EXEC_FAILURES = {126, 127, 128, 255}
SHELLS = ("sh", "bash", "ash", "dash")


def failed_to_start(inspect: dict[str, Any]) -> bool:
    """Did it fail to start, or end so soon with an error that it may have? (runc 1.1 reports a late failure as 1.)"""
    state = inspect.get("State") or {}
    if state.get("Error"):
        return True
    if state.get("Running") and not state.get("Restarting"):
        return False
    code = state.get("ExitCode")
    return code in EXEC_FAILURES or (code == 1 and when(state["FinishedAt"]) - when(state["StartedAt"]) < SOON)


def environment(inspect: dict[str, Any]) -> dict[str, str]:
    pairs = (str(entry).partition("=") for entry in (inspect.get("Config") or {}).get("Env") or [])
    return {name: value for name, _, value in pairs}


def candidates(inspect: dict[str, Any], command: str) -> list[str]:
    """Places where the runtime looks for ``command``, in order (execvp over the container's PATH)."""
    if not command:
        return []
    if "/" in command:
        workdir = (inspect.get("Config") or {}).get("WorkingDir") or "/"
        return [command if command.startswith("/") else f"{workdir.rstrip('/')}/{command}"]
    path = environment(inspect).get("PATH") or DEFAULT_PATH
    return [f"{directory.rstrip('/')}/{command}" for directory in path.split(":") if directory]


def interpreter(head: bytes) -> str:
    """Path of the program that the kernel would run for this file: of ``#!``, or PT_INTERP of an ELF."""
    if head[:2] == b"#!":
        words = head[2:].split(b"\n", 1)[0].strip(b" \t").split()
        return words[0].rstrip(b"\r").decode("utf-8", "replace") if words else ""
    return elf(head)[1]


def elf(head: bytes) -> tuple[int, str]:
    """e_machine and PT_INTERP path; (0, "") if it is no ELF or the header lies outside ``head`` (elf(5))."""
    if head[:4] != b"\x7fELF" or len(head) < 64:
        return 0, ""
    wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
    machine = struct.unpack_from(order + "H", head, 18)[0]
    offset = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    for index in range(min(count, 64)):
        start = offset + index * size
        if start + size > len(head):
            break
        if struct.unpack_from(order + "I", head, start)[0] == 3:  # PT_INTERP
            where, length = struct.unpack_from(order + ("8xQ16xQ" if wide else "4xI8xI"), head, start)
            return machine, head[where : where + length].split(b"\0")[0].decode("utf-8", "replace")
    return machine, ""


def health_command(inspect: dict[str, Any]) -> list[str]:
    """Words of the health check: the program first."""
    test = ((inspect.get("Config") or {}).get("Healthcheck") or {}).get("Test") or []
    if not test or test[0] == "NONE":
        return []
    if test[0] == "CMD":
        return [str(word) for word in test[1:]]
    try:
        return shlex.split(str(test[1])) if len(test) > 1 else []
    except ValueError:
        return str(test[1]).split()


def read_files(client: Client, inspect: dict[str, Any], root: str) -> dict[str, FileFact]:
    """Files that matter for this container, by the keys of `Facts.files`."""
    found: dict[str, FileFact] = {}
    container = str(inspect.get("Id", ""))
    if failed_to_start(inspect):
        for fact in _entry(client, inspect, container, str(inspect.get("Path", ""))):
            found[f"{container}:{fact.path}"] = fact
        exec_line = inspect.get("Args") or []
        if str(inspect.get("Path", "")).rpartition("/")[2] in SHELLS and exec_line[:1] == ["-c"]:
            for word in _first_words(exec_line):
                for fact in _entry(client, inspect, container, word):
                    found[f"{container}:{fact.path}"] = fact
    health = (inspect.get("State") or {}).get("Health") or {}
    if health.get("FailingStreak", 0) and health_command(inspect):
        for fact in _entry(client, inspect, container, health_command(inspect)[0]):
            found[f"{container}:{fact.path}"] = fact
    found.update(_mount_ends(inspect, root))
    return found


def _first_words(args: list[Any]) -> Iterator[str]:
    try:
        words = shlex.split(str(args[1])) if len(args) > 1 else []
    except ValueError:
        words = []
    words = [word for word in words if word != "exec"]
    if words and "=" not in words[0]:
        yield words[0]


def _entry(client: Client, inspect: dict[str, Any], container: str, command: str) -> Iterator[FileFact]:
    for place in candidates(inspect, command):
        fact = container_file(client, container, place, head=True)
        yield fact
        if fact.error or fact.kind != "file":
            continue
        program = interpreter(fact.head)
        if program:
            yield container_file(client, container, program)
        return


def _mount_ends(inspect: dict[str, Any], root: str) -> dict[str, FileFact]:
    found: dict[str, FileFact] = {}
    container = str(inspect.get("Id", ""))
    lower = str(((inspect.get("GraphDriver") or {}).get("Data") or {}).get("LowerDir", ""))
    for mount in inspect.get("Mounts") or []:
        source, target = str(mount.get("Source", "")), str(mount.get("Destination", ""))
        if not source.startswith("/"):
            continue
        for fact in walk_parts(source, root):
            found[f"host:{fact.path}"] = fact
        for layer in lower.split(":") if lower and len(found) < 200 else []:
            fact = host_file(layer + target, root)
            if not fact.error and (fact.kind == "file" or fact.entries):
                found[f"image:{container}:{target}"] = fact
                break
    return found
