"""Mounts: one thin function per system call, errno kept, and a reader of /proc/self/mountinfo.

Every failure is an OSError whose text is a sentence ("cannot mount overlay on /x: Invalid argument"); callers branch on
``errno``. The functions do not wait for a network, but umount and a first mount may wait for a disk: call those from a
thread when on the event loop's path.

The new mount API (fsopen ... move_mount, kernel 5.2) is used where it can do what mount(2) cannot: overlay with more
layers than fit one page of options (``lowerdir+``, 6.5), detached trees, attaching by descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from . import syscalls
from .syscalls import libc, syscall

PAGE_SIZE = 4096  # mount(2) copies at most one page of options


class MountFlag(enum.IntFlag):
    """MS_* of mount(2)."""

    NONE = 0
    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    SYNCHRONOUS = 16
    REMOUNT = 32
    MANDLOCK = 64
    DIRSYNC = 128
    NOSYMFOLLOW = 256
    NOATIME = 1024
    NODIRATIME = 2048
    BIND = 4096
    MOVE = 8192
    REC = 16384
    SILENT = 32768
    UNBINDABLE = 1 << 17
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20
    RELATIME = 1 << 21
    STRICTATIME = 1 << 24
    LAZYTIME = 1 << 25


class UmountFlag(enum.IntFlag):
    """MNT_* and UMOUNT_* of umount2(2)."""

    NONE = 0
    FORCE = 1
    DETACH = 2
    EXPIRE = 4
    NOFOLLOW = 8


OPEN_TREE_CLONE = 1
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_IDMAP = 1, 2, 4, 8, 0x100000
FS_CLOEXEC = 1


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError; E2BIG if ``data`` does not fit the page that the kernel reads."""
    options = os.fsencode(data)
    if len(options) >= PAGE_SIZE:
        raise OSError(errno.E2BIG, f"cannot mount {fstype or source} on {target}: options longer than a page")
    arguments = (os.fsencode(source), os.fsencode(target), fstype.encode() or None, int(flags), options or None)
    if libc.mount(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot mount {fstype or source} on {target}: {os.strerror(code)}")


def umount(target: str, flags: int = UmountFlag.NOFOLLOW) -> None:
    if libc.umount2(os.fsencode(target), int(flags)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"cannot unmount {target}: {os.strerror(code)}")


def umount_if_mounted(target: str, flags: int = UmountFlag.NOFOLLOW) -> bool:
    """False where nothing was mounted (EINVAL) or the place is gone."""
    try:
        umount(target, flags)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return True


def bind(source: str, target: str, *, recursive: bool = False, readonly: bool = False) -> None:
    """Bind mount; read-only needs the second call, because the first ignores all flags but MS_REC (mount(2))."""
    mount(source, target, flags=MountFlag.BIND | (MountFlag.REC if recursive else 0))
    if readonly:
        mount("none", target, flags=MountFlag.BIND | MountFlag.REMOUNT | MountFlag.RDONLY)


def make_propagation(target: str, flag: MountFlag, *, recursive: bool = False) -> None:
    """PRIVATE, SLAVE, SHARED or UNBINDABLE."""
    mount("none", target, flags=flag | (MountFlag.REC if recursive else 0))


def mount_erofs(index: str, target: str, devices: Sequence[str] = ()) -> None:
    """An EROFS index over plain files, without loop devices (CONFIG_EROFS_FS_BACKED_BY_FILE, 6.12). The devices are
    taken in the order of the index's device table. ENOTBLK: this kernel cannot."""
    data = ",".join(f"device={device}" for device in devices)
    mount(index, target, "erofs", MountFlag.RDONLY | MountFlag.NODEV, data)


def mount_overlay(
    target: str, lowers: Sequence[str], upper: str = "", work: str = "", options: Iterable[str] = (), flags: int = 0
) -> None:
    """overlayfs; ``lowers`` are topmost first. Without ``upper`` the mount is read-only and needs two lowers.

    Escapes what the option syntax gives a meaning. More layers than fit a page go through fsconfig ``lowerdir+``
    (kernel 6.5), each path there being shorter than 256 bytes.
    """
    data = ["lowerdir=" + ":".join(_escape_lower(lower) for lower in lowers)]
    if upper:
        data += ["upperdir=" + _escape(upper), "workdir=" + _escape(work)]
    joined = ",".join([*data, *options])
    if len(os.fsencode(joined)) < PAGE_SIZE:
        mount("overlay", target, "overlay", flags, joined)
        return
    keys = [("lowerdir+", lower) for lower in lowers]
    keys += [("upperdir", upper), ("workdir", work)] if upper else []
    keys += [(name, value) for name, _, value in (option.partition("=") for option in options)]
    fd = fs_mount("overlay", keys, MOUNT_ATTR_RDONLY if flags & MountFlag.RDONLY else 0)
    try:
        move_mount(fd, target)
    finally:
        os.close(fd)


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace(",", "\\,")


def _escape_lower(path: str) -> str:
    return _escape(path).replace(":", "\\:")


def fs_mount(fstype: str, parameters: Iterable[tuple[str, str]], attributes: int = 0) -> int:
    """fsopen, fsconfig, fsmount: a detached mount's descriptor. An empty value sets a flag. The kernel's own message
    from the fs context is part of the error."""
    context = syscall(syscalls.FSOPEN, fstype.encode(), FS_CLOEXEC)
    try:
        for key, value in parameters:
            kind = FSCONFIG_SET_STRING if value else FSCONFIG_SET_FLAG
            syscall(syscalls.FSCONFIG, context, kind, key.encode(), os.fsencode(value) if value else None, 0)
        syscall(syscalls.FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return syscall(syscalls.FSMOUNT, context, FS_CLOEXEC, attributes)
    except OSError as error:
        raise OSError(error.errno, f"cannot mount {fstype}: {_context_log(context) or error.strerror}") from None
    finally:
        os.close(context)


def _context_log(context: int) -> str:
    lines = ""
    with contextlib.suppress(OSError):  # one line a read; ENODATA ends the log
        for _ in range(16):
            lines += os.read(context, 1024).decode(errors="replace").rstrip("\n") + "\n"
    return "; ".join(line[2:] for line in lines.splitlines() if line.startswith("e "))


def open_tree(path: str, *, dir_fd: int = -100, clone: bool = True, recursive: bool = False) -> int:
    """A descriptor of the mount at ``path`` (``""`` = dir_fd itself); a detached copy of it with ``clone``."""
    flags = os.O_CLOEXEC | (OPEN_TREE_CLONE if clone else 0) | (AT_RECURSIVE if recursive else 0)
    flags |= 0 if path else AT_EMPTY_PATH
    return syscall(syscalls.OPEN_TREE, dir_fd, os.fsencode(path), flags)


def move_mount(mount_fd: int, target: str, *, dir_fd: int = -100) -> None:
    """Attach a detached mount at ``target``, or exactly on the opened ``dir_fd`` where ``target`` is empty."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    try:
        syscall(syscalls.MOVE_MOUNT, mount_fd, b"", dir_fd, os.fsencode(target), flags)
    except OSError as error:
        raise OSError(error.errno, f"cannot attach mount on {target or 'descriptor'}: {error.strerror}") from None


class _MountAttr(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


def mount_setattr(
    fd: int, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, userns_fd: int = 0, recursive: bool = False
) -> None:
    """MOUNT_ATTR_* of the (detached or attached) mount behind ``fd`` (5.12); recursive read-only is done here."""
    attr = _MountAttr(attr_set, attr_clr, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(syscalls.MOUNT_SETATTR, fd, b"", flags, ctypes.byref(attr), ctypes.sizeof(attr))


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One row of mountinfo (proc_pid_mountinfo(5))."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    target: str
    options: str
    tags: tuple[str, ...]
    fstype: str
    source: str
    super_options: str

    def super_option(self, name: str) -> str | None:
        return _options(self.super_options).get(name)


def read_mounts(path: str = "/proc/self/mountinfo", under: str = "") -> list[MountEntry]:
    """All mounts in mount order, or those at or below ``under``."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        rows = [_parse_row(line) for line in file]
    prefix = under.rstrip("/") + "/"
    return [row for row in rows if not under or row.target == under or row.target.startswith(prefix)]


def _parse_row(line: str) -> MountEntry:
    left, _, right = line.rstrip("\n").partition(" - ")
    number, parent, device, root, target, options, *tags = left.split(" ")
    fstype, source, super_options = [*right.split(" "), "", ""][:3]
    return MountEntry(
        int(number), int(parent), device, _unescape(root), _unescape(target), options, tuple(tags), fstype,
        _unescape(source), super_options,
    )  # fmt: skip


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _options(text: str) -> Mapping[str, str]:
    return {key: value for key, _, value in (item.partition("=") for item in text.split(","))}
