"""Who may do what to a repository: one pure decision, tested role by role, verb by verb, kind by kind.

    system admin                      admin everywhere
    the user a namespace is named of  admin in it           organisation owner   admin in the organisation
    grants of teams and of the user   add up, highest wins; a grant on the namespace covers repositories not yet made
    anybody                           read of public repositories
    a token                           never more than its own level

Nobody may do anything to a repository that does not exist, but create it: namespace owners, admins, and holders of a
read-write grant on the whole namespace.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dockyard.registry.database import Tx
from dockyard.registry.names import namespace_of


class Level(enum.IntEnum):
    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        return {0: "none", 1: "read", 2: "read-write", 3: "admin"}[self.value]


LEVELS = {level.word: level for level in Level}
NEEDED = {"pull": Level.READ, "push": Level.WRITE, "delete": Level.WRITE, "*": Level.ADMIN}


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody known, or nobody (account None)."""

    name: str = ""
    account: int | None = None
    admin: bool = False
    cap: Level = Level.ADMIN


ANONYMOUS = Caller()


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision needs to know of one repository and one caller."""

    name: str
    exists: bool
    public: bool
    owner: bool
    granted: tuple[Level, ...] = ()
    namespace_granted: tuple[Level, ...] = ()


def decide(caller: Caller, facts: Facts) -> Level:
    if caller.account is not None and (caller.admin or facts.owner):
        return min(Level.ADMIN, caller.cap)
    found = Level.NONE
    if caller.account is not None:
        granted = facts.namespace_granted + (facts.granted if facts.exists else ())
        found = max(granted, default=Level.NONE)
    if facts.exists and facts.public:
        found = max(found, Level.READ)
    if not facts.exists and found < Level.WRITE:
        found = Level.NONE
    return min(found, caller.cap)


def actions_of(level: Level, wanted: list[str]) -> list[str]:
    """The wanted actions that the level allows, in their order."""
    return [action for action in wanted if action in NEEDED and level >= NEEDED[action]]


def gather(tx: Tx, caller: Caller, name: str) -> Facts:
    namespace = namespace_of(name)
    row = tx.one(
        "SELECT r.id, r.public, u.id FROM (SELECT 1 AS one) x LEFT JOIN repositories r ON r.name = ?"
        " LEFT JOIN upstreams u ON u.prefix = ? AND u.active = 1",
        (name, namespace),
    )
    assert row is not None
    cached = row[2] is not None  # a proxy cache shows everything that its upstream shows
    exists, public = row[0] is not None or cached, bool(row[1]) or cached
    if caller.account is None:
        return Facts(name, exists, public, False)
    granted = tx.all(
        "SELECT g.repository, g.level FROM grants g WHERE g.namespace = ? AND (g.account = ? OR g.team IN"
        " (SELECT team FROM team_members WHERE account = ?)) AND (g.repository IS NULL OR g.repository = ?)",
        (namespace, caller.account, caller.account, -1 if row[0] is None else row[0]),
    )
    return Facts(
        name, exists, public, owns(tx, caller, namespace),
        tuple(Level(g[1]) for g in granted if g[0] is not None),
        tuple(Level(g[1]) for g in granted if g[0] is None),
    )  # fmt: skip


def owns(tx: Tx, caller: Caller, namespace: str) -> bool:
    if caller.account is None:
        return False
    if caller.name == namespace:
        return True
    return tx.one(
        "SELECT 1 FROM memberships m JOIN accounts o ON o.id = m.org"
        " WHERE o.name = ? AND m.account = ? AND m.owner = 1",
        (namespace, caller.account),
    ) is not None  # fmt: skip


def level_of(tx: Tx, caller: Caller, name: str) -> Level:
    return decide(caller, gather(tx, caller, name))


def pushable(tx: Tx, caller: Caller) -> list[str]:
    """Namespaces, as `name/`, that the caller may push new repositories to."""
    if caller.account is None:
        return []
    rows = tx.all(
        "SELECT o.name FROM memberships m JOIN accounts o ON o.id = m.org WHERE m.account = ? AND m.owner = 1"
        " UNION SELECT g.namespace FROM grants g WHERE g.repository IS NULL AND g.level >= 2 AND (g.account = ? OR"
        " g.team IN (SELECT team FROM team_members WHERE account = ?)) ORDER BY 1",
        (caller.account, caller.account, caller.account),
    )
    return [f"{name}/" for name in dict.fromkeys([caller.name, *(row[0] for row in rows)])]


def visible_sql(caller: Caller) -> tuple[str, list[object]]:
    """(condition on `repositories r`, its arguments): what the caller may see, for lists and search."""
    if caller.admin and caller.account is not None:
        return "1 = 1", []
    if caller.account is None:
        return "r.public = 1", []
    account = caller.account
    return (
        "(r.public = 1 OR r.namespace = ? OR r.namespace IN (SELECT o.name FROM memberships m JOIN accounts o"
        " ON o.id = m.org WHERE m.account = ? AND m.owner = 1) OR EXISTS (SELECT 1 FROM grants g WHERE"
        " g.namespace = r.namespace AND (g.repository IS NULL OR g.repository = r.id) AND (g.account = ? OR g.team IN"
        " (SELECT team FROM team_members WHERE account = ?))))",
        [caller.name, account, account, account],
    )
