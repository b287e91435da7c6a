"""``userns-remap``: from what an administrator writes to ids, as dockerd reads it (daemon_unix.go parseRemappedRoot).

``default`` | user | user:group | uid | uid:gid. The subordinate ids of that *user* in /etc/subuid and /etc/subgid become
the containers' ids, its first one their root. ``default`` means the user dockremap, who is made if there is none.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dockyard.errors import Code, InvalidParameter, Unavailable
from dockyard.kernel import process
from dockyard.model.idmap import MAX_RANGES, UNCHANGED, IdMaps, IdRange, subordinate

DEFAULT, DEFAULT_USER = "default", "dockremap"
SUBUID, SUBGID = Path("/etc/subuid"), Path("/etc/subgid")
FIRST_ID, RANGE = 100000, 65536
"""Where dockerd (and useradd) begin to give subordinate ids, and how many to one user."""
COMMAND_LIMIT = 30.0
BAD_REMAP = Code("DY-ENG-090", InvalidParameter, "{cause}", hint="--userns-remap takes default, user, user:group or uid[:gid]")
NO_RANGES = Code(
    "DY-ENG-091", InvalidParameter, 'Can\'t create ID mappings: no {kind} ranges found for user "{user}" in {file}',
    hint="usermod --add-{kind}s {first}-{last} {user}",
)  # fmt: skip
BAD_RANGES = Code("DY-ENG-092", InvalidParameter, "Can't create ID mappings: {cause}", hint="see subuid(5)")
NO_USER_MADE = Code(
    "DY-ENG-093", Unavailable, 'Error during "{user}" user creation: {cause}',
    hint="useradd --system --no-create-home --user-group {user} && "
    "usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}",
)  # fmt: skip
NOT_REACHABLE = Code(
    "DY-ENG-094", InvalidParameter,
    "a subdirectory in your graphroot path ({root}) restricts access to the remapped root uid/gid: {directory}",
    hint="chmod o+x {directory}",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Remapped:
    """``user`` and ``group`` as names; without ids where root stands for itself, which is no remapping."""

    user: str
    group: str
    ids: IdMaps


def resolve(wish: str) -> Remapped:
    """Raises InvalidParameter in dockerd's words, Unavailable where dockremap cannot be made."""
    user, colon, group = wish.partition(":")
    if ":" in group or not user or (colon and not group):
        raise BAD_REMAP(cause=f'Invalid user/group specification in --userns-remap: "{wish}"')
    if user == DEFAULT and not _exists(DEFAULT_USER):
        _make_user()
    found = _user(DEFAULT_USER if user == DEFAULT else user)
    name = _group(group) if colon else _group(str(found.pw_gid) if user.isdigit() else found.pw_name)
    if found.pw_name == "root":
        return Remapped("root", name, UNCHANGED)
    ids = IdMaps(_ranges(SUBUID, "subuid", found), _ranges(SUBGID, "subgid", found))
    return Remapped(found.pw_name, name, ids)


def data_root(root: Path, ids: IdMaps) -> Path:
    """Every mapping has a data root of its own: owners of volumes mean nothing under another."""
    uid, gid = ids.root
    return root / f"{uid}.{gid}"


def reachable(root: Path, ids: IdMaps) -> None:
    """The containers' root may pass through the data root, others may not (CVE-2021-41091), and nobody but the host's
    root may write there (CVE-2021-21284). Raises InvalidParameter where a directory above stops it."""
    uid, gid = ids.root
    for directory in (root, root.parent):
        os.chown(directory, 0, gid)
        os.chmod(directory, 0o710)
    for above in root.parent.parents:
        info = os.stat(above)
        if not (info.st_mode & 1 or (info.st_uid == uid and info.st_mode & 0o100) or (info.st_gid == gid and info.st_mode & 0o10)):
            raise NOT_REACHABLE(root=str(root), directory=str(above))


def parse_subordinate(text: str, names: Iterable[str]) -> list[tuple[int, int]]:
    """(first, size) of the lines of subuid(5) that name one of ``names``. Raises ValueError for a line that is wrong."""
    found = []
    for line in text.splitlines():
        parts = line.strip().split(":")
        if line.strip() and not line.startswith("#") and parts[0] in names:
            if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
                raise ValueError(f"Cannot parse subuid/gid information: Format not correct for {line.strip()}")
            found.append((int(parts[1]), int(parts[2])))
    return found


def free_range(text: str) -> int:
    """The first id of a gap of RANGE ids between the ranges of all users."""
    taken = []
    for line in text.splitlines():
        parts = line.strip().split(":")
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
            taken.append((int(parts[1]), int(parts[2])))
    first = FIRST_ID
    for start, size in sorted(taken):
        if start >= first + RANGE:
            break
        first = max(first, start + size)
    return first


def _ranges(file: Path, kind: str, user: pwd.struct_passwd) -> tuple[IdRange, ...]:
    text = _read(file)
    try:
        pairs = parse_subordinate(text, (user.pw_name, str(user.pw_uid)))
    except ValueError as wrong:
        raise BAD_RANGES(cause=str(wrong)) from None
    if not pairs:
        first = free_range(text)
        raise NO_RANGES(kind=kind, user=user.pw_name, file=str(file), first=first, last=first + RANGE - 1)
    made = subordinate(pairs)
    _check(made, file)
    return made


def _check(ranges: tuple[IdRange, ...], file: Path) -> None:
    """What the kernel would refuse, and root's own id, which must never be a container's."""
    if len(ranges) >= MAX_RANGES:
        raise BAD_RANGES(cause=f"{file} gives more than {MAX_RANGES - 1} ranges")
    end = 0
    for each in ranges:
        if each.size < 1 or each.host < max(1, end) or each.host + each.size > 1 << 32:
            raise BAD_RANGES(cause=f"range {each.host}:{each.size} in {file} is empty, overlaps another or holds root's id")
        end = each.host + each.size


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _user(text: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(text)) if text.isdigit() else pwd.getpwnam(text)
    except (KeyError, OverflowError):
        told = f"Uid {text} has no entry in /etc/passwd" if text.isdigit() else f'Error during uid lookup for "{text}": no such user'
        raise BAD_REMAP(cause=told) from None


def _group(text: str) -> str:
    try:
        return (grp.getgrgid(int(text)) if text.isdigit() else grp.getgrnam(text)).gr_name
    except (KeyError, OverflowError):
        told = f"Gid {text} has no entry in /etc/group" if text.isdigit() else f'Error during gid lookup for "{text}": no such group'
        raise BAD_REMAP(cause=told) from None


def _make_user() -> None:
    """dockremap with a group and a range of subordinate ids, by the host's own tools, which know its locks."""
    first = free_range(_read(SUBUID) + "\n" + _read(SUBGID))
    ids = f"{first}-{first + RANGE - 1}"
    shell = "/usr/sbin/nologin" if os.path.exists("/usr/sbin/nologin") else "/bin/false"
    words = [["useradd", "--system", "--no-create-home", "--user-group", "--shell", shell, DEFAULT_USER]]
    texts = ((_read(SUBUID), "--add-subuids"), (_read(SUBGID), "--add-subgids"))
    flags = [word for text, flag in texts if not parse_subordinate(text, (DEFAULT_USER,)) for word in (flag, ids)]
    words += [["usermod", *flags, DEFAULT_USER]] if flags else []
    for command in words:
        cause = _refused(command)
        if cause:
            raise NO_USER_MADE(user=DEFAULT_USER, cause=cause, first=first, last=first + RANGE - 1)


def _refused(command: list[str]) -> str:
    """Why a tool did not do it; "" if it did."""
    program = shutil.which(command[0], path=process.PATH)
    if not program:
        return f"{command[0]} is not on this host"
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=COMMAND_LIMIT)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"{command[0]} ended with {done.returncode}"
