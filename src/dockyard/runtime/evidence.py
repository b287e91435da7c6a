"""Looking at what a container was told to run: facts for ``forensics``. By descriptor, with limits; nothing runs."""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dockyard.kernel import safefs
from dockyard.runtime.elf import Elf, parse_elf

HEAD = 512
MAX_LIBRARIES = 128
MAX_PATH_ENTRIES = 64
MAX_CONF_FILES = 64
_MULTIARCH = {
    "amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "386": "i386-linux-gnu", "arm": "arm-linux-gnueabihf",
    "ppc64le": "powerpc64le-linux-gnu", "s390x": "s390x-linux-gnu", "riscv64": "riscv64-linux-gnu",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Program:
    """One file. ``kind``: missing, directory, file, special. ``elf`` only for ELF files."""

    path: str
    kind: str = "missing"
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    head: bytes = b""
    elf: Elf | None = None
    noexec: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """``program`` is what argv[0] leads to; ``interpreter`` the program of its #! line, ``env_target`` the one that
    ``#!/usr/bin/env NAME`` looks for; ``loader`` the ELF loader; ``missing_libraries`` as (library, needed by)."""

    argv: tuple[str, ...]
    path: str
    cwd: str
    cwd_kind: str
    user: tuple[int, int, tuple[int, ...]]
    arch: str
    program: Program
    interpreter: Program | None = None
    env_target: Program | None = None
    loader: Program | None = None
    missing_libraries: tuple[tuple[str, str], ...] = ()


class Root:
    """A container's file system as it would be: its root, and the binds over it."""

    def __init__(self, root: str, mounts: Sequence[Mapping[str, Any]]) -> None:
        self._root = root
        self._binds = sorted(
            (mount for mount in mounts if mount.get("type") == "bind"),
            key=lambda mount: -len(mount["destination"]),
        )

    @contextlib.contextmanager
    def open(self, path: str, flags: int) -> Iterator[tuple[int, bool]]:
        """(descriptor, whether its mount refuses execution). Raises OSError."""
        base, inside, noexec = self._root, path, False
        for bind in self._binds:
            target = bind["destination"].rstrip("/")
            if path == target or path.startswith(f"{target}/"):
                base, inside = bind["source"], path[len(target) :].lstrip("/")
                noexec = "noexec" in bind.get("options", ())
                break
        if not inside:  # the bind's source itself; the user named it
            fd = os.open(base, flags | os.O_CLOEXEC)
        else:
            with safefs.root_fd(base) as root:
                fd = safefs.open_in_root(root, inside, flags)
        try:
            yield fd, noexec or bool(os.fstatvfs(fd).f_flag & os.ST_NOEXEC)
        finally:
            os.close(fd)

    def look(self, path: str) -> Program:
        """Never raises; opening for reading is tried on regular files only."""
        try:
            with self.open(path, os.O_PATH) as (fd, noexec):
                found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode):
                return Program(path, "directory", found.st_mode)
            if not stat.S_ISREG(found.st_mode):
                return Program(path, "special", found.st_mode)
            with self.open(path, os.O_RDONLY | os.O_NONBLOCK) as (fd, _):
                head = os.pread(fd, HEAD, 0)
                elf = parse_elf(lambda offset, size: os.pread(fd, size, offset))
        except (OSError, ValueError, OverflowError):
            return Program(path)
        return Program(
            path, "file", stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_size, head, elf, noexec
        )


def gather(spec: Mapping[str, Any], arch: str) -> Evidence:
    """From an OCI configuration whose root file system is there. Blocks on the disk for some hundred small reads."""
    process = spec["process"]
    argv = tuple(process["args"])
    if argv[:2] == ("/sbin/docker-init", "--"):
        argv = argv[2:]
    env = dict(item.partition("=")[::2] for item in process.get("env", ()))
    root = Root(spec["root"]["path"], spec.get("mounts", ()))
    user = process.get("user", {})
    program = _find(root, argv[0], env.get("PATH", ""), process["cwd"])
    shebang = parse_shebang(program.head)
    interpreter = env_target = loader = None
    if shebang:
        interpreter = root.look(shebang[0])
        if posixpath.basename(shebang[0]) == "env" and len(shebang) > 1:
            target = next((word for word in shebang[1:] if not word.startswith("-")), "")
            env_target = _find(root, target, env.get("PATH", ""), process["cwd"]) if target else None
    final = env_target or interpreter or program
    missing: tuple[tuple[str, str], ...] = ()
    if final.elf is not None and final.elf.interpreter:
        loader = root.look(final.elf.interpreter)
        missing = tuple(_missing_libraries(root, final, env.get("LD_LIBRARY_PATH", "")))
    return Evidence(
        argv, env.get("PATH", ""), process["cwd"], root.look(process["cwd"]).kind,
        (user.get("uid", 0), user.get("gid", 0), tuple(user.get("additionalGids", ()))),
        arch, program, interpreter, env_target, loader, missing,
    )  # fmt: skip


def _find(root: Root, name: str, path: str, cwd: str) -> Program:
    """As execvp would; a directory or a file without x is passed over only if something better follows."""
    if "/" in name:
        return root.look(posixpath.join(cwd, name))
    best = Program(name)
    for directory in path.split(":")[:MAX_PATH_ENTRIES]:
        found = root.look(posixpath.join(directory or cwd, name))
        if found.kind == "file" and found.mode & 0o111:
            return found
        if found.kind == "file" and best.kind == "missing":
            best = found
    return best


def parse_shebang(head: bytes) -> list[str]:
    """The words of a #! line; a carriage return stays on them, because it is evidence."""
    if not head.startswith(b"#!"):
        return []
    line = head[2:].partition(b"\n")[0].decode(errors="replace").strip(" \t")
    return line.split(None, 1) if "\r" not in line else line.split(" ")


def _missing_libraries(root: Root, program: Program, library_path: str) -> Iterator[tuple[str, str]]:
    """Walks DT_NEEDED; a library is searched where the loader would."""
    assert program.elf is not None
    system = [entry for entry in library_path.split(":") if entry] + _system_directories(root, program.elf.arch)
    queue, seen = [program], {posixpath.basename(program.elf.interpreter)}
    while queue and len(seen) < MAX_LIBRARIES:
        user = queue.pop(0)
        assert user.elf is not None
        origin = posixpath.dirname(user.path)
        own = [entry.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for entry in user.elf.search]
        for name in user.elf.needed:
            if name in seen or name.startswith(("ld-linux", "ld-musl", "libc.musl")):
                continue
            seen.add(name)
            found = _library(root, name, [*own, *system], program.elf.arch)
            if found is None:
                yield name, user.path
            else:
                queue.append(found)


def _library(root: Root, name: str, directories: Sequence[str], arch: str) -> Program | None:
    for path in [name] if "/" in name else (f"{directory}/{name}" for directory in directories):
        found = root.look(path)
        if found.elf is not None and found.elf.arch == arch:
            return found
    return None


def _system_directories(root: Root, arch: str) -> list[str]:
    multiarch = _MULTIARCH.get(arch, "")
    names = [f"{base}/{multiarch}" for base in ("/lib", "/usr/lib", "/usr/local/lib") if multiarch]
    names += ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib", "/lib32", "/usr/lib32"]
    return names + list(_configured_directories(root))


def _configured_directories(root: Root) -> Iterator[str]:
    """/etc/ld.so.conf.d/*.conf and musl's path file; ``include`` other than that is rare."""
    names = ["/etc/ld.so.conf"]
    with contextlib.suppress(OSError), root.open("/etc/ld.so.conf.d", os.O_RDONLY | os.O_DIRECTORY) as (fd, _):
        names += [f"/etc/ld.so.conf.d/{name}" for name in sorted(os.listdir(fd))[:MAX_CONF_FILES]]
    for name in names:
        with contextlib.suppress(OSError), root.open(name, os.O_RDONLY | os.O_NONBLOCK) as (fd, _):
            lines = os.pread(fd, 16 << 10, 0).decode(errors="replace").splitlines()
            yield from (line.strip() for line in lines if line.startswith("/"))
