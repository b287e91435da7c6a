"""USER of a container: names looked up in its own /etc/passwd and /etc/group, read by descriptor.

Never through NSS (which would load libraries), links stay inside the root, never more than ``LIMIT`` bytes. A number is
a number, also when an account has it as its name (CVE-2026-46680 and its kin).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dockyard.kernel import safefs
from dockyard.runtime import errors

LIMIT = 1 << 20
MAX_ID = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class User:
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: frozenset[str]


def resolve(root_fd: int, spec: str, group_add: Sequence[str] = ()) -> User:
    """``spec``: "", user, uid, user:group in all mixes. Raises InvalidParameter in Docker's words."""
    return decide(read_etc(root_fd, "passwd"), read_etc(root_fd, "group"), spec, group_add)


def read_etc(root_fd: int, name: str) -> str:
    """A regular file of the root's /etc; "" if it is missing, too large, or something else."""
    try:
        return safefs.read_file(root_fd, f"etc/{name}", LIMIT).decode(errors="surrogateescape")
    except OSError:
        return ""


def decide(passwd: str, group: str, spec: str, group_add: Sequence[str] = ()) -> User:
    """The same, from the files' texts. Pure."""
    accounts, groups = _accounts(passwd), _groups(group)
    wanted, _, wanted_group = spec.partition(":")
    account = _find_account(accounts, wanted or "0")
    gid = _find_gid(groups, wanted_group) if wanted_group else account.gid
    others: dict[int, None] = {}
    if not wanted_group:
        others = dict.fromkeys(each.gid for each in groups if account.name and account.name in each.members)
    for name in group_add:
        others[_find_gid(groups, name)] = None
    return User(account.uid, gid, tuple(others), account.home)


def _find_account(accounts: list[_Account], wanted: str) -> _Account:
    number = _number(wanted)
    for account in accounts:
        if account.name == wanted if number is None else account.uid == number:
            return account
    if number is None:
        raise errors.NO_USER(name=wanted)
    return _Account("", number, 0, "/")


def _find_gid(groups: list[_Group], wanted: str) -> int:
    number = _number(wanted)
    if number is not None:
        return number
    for group in groups:
        if group.name == wanted:
            return group.gid
    raise errors.NO_GROUP(name=wanted)


def _number(text: str) -> int | None:
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        return None
    number = int(text) if len(text) < 20 else -1
    if not 0 <= number <= MAX_ID:
        raise errors.INVALID_USER(limit=MAX_ID, value=text)
    return number


def _accounts(text: str) -> list[_Account]:
    rows = (line.split(":") for line in text.splitlines())
    return [
        _Account(row[0], int(row[2]), int(row[3]), row[5] or "/")
        for row in rows
        if len(row) >= 6 and row[0] and row[2].isdigit() and row[3].isdigit()
    ]


def _groups(text: str) -> list[_Group]:
    rows = (line.split(":") for line in text.splitlines())
    return [
        _Group(row[0], int(row[2]), frozenset(name.strip() for name in row[3].split(",")))
        for row in rows
        if len(row) >= 4 and row[0] and row[2].isdigit()
    ]
