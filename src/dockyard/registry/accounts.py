"""Accounts, organisations, teams, grants, secrets: changing them (each change audited) and logging in."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dockyard.registry.access import Caller, Level
from dockyard.registry.core import Actor, Core, audit
from dockyard.registry.database import Tx
from dockyard.registry.errors import (
    ACCOUNT_EXISTS,
    ACCOUNT_UNKNOWN,
    LOGIN_FAILED,
    TEAM_EXISTS,
    TEAM_UNKNOWN,
    THING_UNKNOWN,
    TOO_MANY,
    VALUE_INVALID,
)
from dockyard.registry.names import namespace_of
from dockyard.registry.passwords import (
    PASSWORD_MAX,
    PASSWORD_MIN,
    SECRET_PREFIX,
    digest_secret,
    hash_password,
    new_secret,
    verify_password,
)

if TYPE_CHECKING:
    from dockyard.registry.ldap import Directory

_ACCOUNT = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*\Z")
_ACCOUNT_MAX = 64
_RESERVED = frozenset({"library", "api", "v1", "v2", "token", "health", "metrics", "login", "static"})
_HASHERS = 2  # argon2 takes 64 MiB and a core for each
_REMEMBER_SECONDS = 60.0
_FAILURES_MAX = 10
_FAILURE_SECONDS = 60.0
_TABLE_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Account:
    id: int
    name: str
    kind: str
    admin: bool
    active: bool
    source: str
    full_name: str
    quota: int | None


_COLUMNS = "id, name, kind, admin, active, source, full_name, quota"


def _account(row: tuple[Any, ...]) -> Account:
    return Account(row[0], row[1], row[2], bool(row[3]), bool(row[4]), row[5], row[6], row[7])


def find_account(tx: Tx, name: str) -> Account:
    row = tx.one(f"SELECT {_COLUMNS} FROM accounts WHERE name = ?", (name,))
    if row is None:
        raise ACCOUNT_UNKNOWN(name=name)
    return _account(row)


def find_team(tx: Tx, org: str, team: str) -> int:
    row = tx.one(
        "SELECT t.id FROM teams t JOIN accounts o ON o.id = t.org WHERE o.name = ? AND t.name = ?", (org, team)
    )
    if row is None:
        raise TEAM_UNKNOWN(org=org, team=team)
    return int(row[0])


class Accounts:
    def __init__(self, core: Core, directory: Directory | None = None) -> None:
        self.core = core
        self.directory = directory
        self._lane = ThreadPoolExecutor(_HASHERS, thread_name_prefix="registry-password")
        self._salt = os.urandom(32)
        self._known: dict[bytes, tuple[Caller, float, str]] = {}
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}

    async def close(self) -> None:
        self._lane.shutdown(wait=False)

    # ---- changing

    async def create(self, name: str, *, kind: str = "user", password: str = "", admin: bool = False,
                     full_name: str = "", source: str = "local", actor: Actor = Actor()) -> Account:  # noqa: B008
        """A user or an organisation. Raises ACCOUNT_EXISTS, VALUE_INVALID."""
        if not _ACCOUNT.match(name) or len(name) > _ACCOUNT_MAX or name in _RESERVED:
            raise VALUE_INVALID(what="account name", reason="lower-case letters, digits, and single . _ - inside")
        hashed = await self._hash(password) if password else None
        now = self.core.clock()

        def insert(tx: Tx) -> Account:
            if tx.one("SELECT 1 FROM accounts WHERE name = ?", (name,)) is not None:
                raise ACCOUNT_EXISTS(name=name)
            tx.run(
                "INSERT INTO accounts (name, kind, password, full_name, admin, source, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (name, kind, hashed, full_name, int(admin), source, now),
            )
            audit(tx, now, actor, f"{kind}.create", name, "admin" if admin else "")
            tx.changed()
            return find_account(tx, name)

        return await self.core.db.write(insert)

    async def _hash(self, password: str) -> str:
        if not PASSWORD_MIN <= len(password) <= PASSWORD_MAX:
            raise VALUE_INVALID(what="password", reason=f"{PASSWORD_MIN} to {PASSWORD_MAX} characters")
        return await asyncio.get_running_loop().run_in_executor(self._lane, hash_password, password)

    async def change(self, name: str, actor: Actor, *, password: str | None = None, admin: bool | None = None,
                     active: bool | None = None, quota: int | bool | None = False,
                     full_name: str | None = None) -> None:  # fmt: skip
        """Only what is given changes; quota None means unlimited."""
        values: dict[str, Any] = {}
        if password is not None:
            values["password"] = await self._hash(password)
        if admin is not None:
            values["admin"] = int(admin)
        if active is not None:
            values["active"] = int(active)
        if quota is not False:
            values["quota"] = quota
        if full_name is not None:
            values["full_name"] = full_name
        now = self.core.clock()

        def update(tx: Tx) -> None:
            account = find_account(tx, name)
            for column, value in values.items():
                tx.run(f"UPDATE accounts SET {column} = ? WHERE id = ?", (value, account.id))
            if password is not None or active is False:
                tx.run("DELETE FROM secrets WHERE account = ? AND kind IN ('refresh', 'session')", (account.id,))
            audit(tx, now, actor, "account.change", name, " ".join(sorted(values)))
            tx.changed()

        await self.core.db.write(update)

    async def delete(self, name: str, actor: Actor) -> None:
        now = self.core.clock()

        def remove(tx: Tx) -> None:
            account = find_account(tx, name)
            tx.run("DELETE FROM accounts WHERE id = ?", (account.id,))
            audit(tx, now, actor, f"{account.kind}.delete", name)
            tx.changed()

        await self.core.db.write(remove)

    async def set_member(self, org: str, user: str, actor: Actor, *, member: bool = True, owner: bool = False) -> None:
        now = self.core.clock()

        def update(tx: Tx) -> None:
            o, u = find_account(tx, org), find_account(tx, user)
            if o.kind != "org":
                raise ACCOUNT_UNKNOWN(name=org)
            tx.run("DELETE FROM memberships WHERE org = ? AND account = ?", (o.id, u.id))
            if member:
                tx.run("INSERT INTO memberships (org, account, owner) VALUES (?, ?, ?)", (o.id, u.id, int(owner)))
            else:
                tx.run("DELETE FROM team_members WHERE account = ? AND team IN (SELECT id FROM teams WHERE org = ?)",
                       (u.id, o.id))  # fmt: skip
            audit(tx, now, actor, "org.member", f"{org}/{user}", ("owner" if owner else "member") if member else "gone")
            tx.changed()

        await self.core.db.write(update)

    async def create_team(self, org: str, team: str, actor: Actor) -> int:
        if not _ACCOUNT.match(team):
            raise VALUE_INVALID(what="team name", reason="lower-case letters, digits, and single . _ - inside")
        now = self.core.clock()

        def insert(tx: Tx) -> int:
            o = find_account(tx, org)
            if o.kind != "org":
                raise ACCOUNT_UNKNOWN(name=org)
            if tx.one("SELECT 1 FROM teams WHERE org = ? AND name = ?", (o.id, team)) is not None:
                raise TEAM_EXISTS(org=org, team=team)
            tx.run("INSERT INTO teams (org, name) VALUES (?, ?)", (o.id, team))
            audit(tx, now, actor, "team.create", f"{org}/{team}")
            return find_team(tx, org, team)

        return await self.core.db.write(insert)

    async def delete_team(self, org: str, team: str, actor: Actor) -> None:
        now = self.core.clock()

        def remove(tx: Tx) -> None:
            tx.run("DELETE FROM teams WHERE id = ?", (find_team(tx, org, team),))
            audit(tx, now, actor, "team.delete", f"{org}/{team}")
            tx.changed()

        await self.core.db.write(remove)

    async def set_team_member(self, org: str, team: str, user: str, actor: Actor, *, member: bool = True) -> None:
        """Joining a team joins the organisation."""
        now = self.core.clock()

        def update(tx: Tx) -> None:
            set_team_member(tx, find_account(tx, org).id, find_team(tx, org, team), find_account(tx, user).id, member)
            audit(tx, now, actor, "team.member", f"{org}/{team}/{user}", "member" if member else "gone")
            tx.changed()

        await self.core.db.write(update)

    async def grant(self, object_: str, level: Level, actor: Actor, *, team: str = "", user: str = "") -> None:
        """`object_` is a repository, or `namespace/*`; a team is `org/team`. Level NONE takes the grant away."""
        now = self.core.clock()

        def update(tx: Tx) -> None:
            everything = object_.endswith("/*")
            namespace = object_[:-2] if everything else namespace_of(object_)
            repository = None
            if not everything:
                row = tx.one("SELECT id FROM repositories WHERE name = ?", (object_,))
                if row is None:
                    raise THING_UNKNOWN(what="repository", name=object_)
                repository = row[0]
            org, _, short = team.partition("/")
            who = ("team", find_team(tx, org, short)) if team else ("account", find_account(tx, user).id)
            place = "repository IS NULL" if repository is None else "repository = ?"
            args = (namespace, who[1], *(() if repository is None else (repository,)))
            tx.run(f"DELETE FROM grants WHERE namespace = ? AND {who[0]} = ? AND {place}", args)
            if level:
                tx.run(f"INSERT INTO grants (namespace, repository, {who[0]}, level) VALUES (?, ?, ?, ?)",
                       (namespace, repository, who[1], int(level)))  # fmt: skip
            audit(tx, now, actor, "grant", object_, f"{level.word} to {team or user}")
            tx.changed()

        await self.core.db.write(update)

    # ---- secrets: personal and robot tokens, refresh tokens

    async def create_secret(self, name: str, actor: Actor, *, label: str = "", level: Level = Level.ADMIN,
                            seconds: float | None = None, kind: str = "token", service: str = "") -> str:  # fmt: skip
        """The secret itself, shown once. It logs its account in, with at most `level`."""
        secret = new_secret()
        now = self.core.clock()

        def insert(tx: Tx) -> None:
            tx.run("DELETE FROM secrets WHERE expires <= ?", (now,))
            tx.run(
                "INSERT INTO secrets (account, kind, digest, label, level, service, created, expires)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (find_account(tx, name).id, kind, digest_secret(secret), label, int(level), service, now,
                 None if seconds is None else now + seconds),
            )  # fmt: skip
            if kind == "token":
                audit(tx, now, actor, "token.create", name, f"{label} {level.word}")

        await self.core.db.write(insert)
        return secret

    async def revoke_secret(self, name: str, secret_id: int, actor: Actor) -> None:
        now = self.core.clock()

        def remove(tx: Tx) -> None:
            account = find_account(tx, name)
            if tx.run("DELETE FROM secrets WHERE id = ? AND account = ?", (secret_id, account.id)) == 0:
                raise THING_UNKNOWN(what="token", name=str(secret_id))
            audit(tx, now, actor, "token.revoke", name, str(secret_id))
            tx.changed()

        await self.core.db.write(remove)

    async def forget_secret(self, secret: str, *, kind: str) -> None:
        """Its holder gives it back (logout); unknown is fine."""
        await self.core.db.write(
            lambda tx: tx.run("DELETE FROM secrets WHERE digest = ? AND kind = ?", (digest_secret(secret), kind))
        )

    async def change_own_password(self, name: str, old: str, new: str, actor: Actor) -> None:
        """Ends every other session and login of the account. Raises LOGIN_FAILED, VALUE_INVALID, TOO_MANY."""
        account = await self.core.db.read(lambda tx: find_account(tx, name))
        if account.source != "local":
            raise VALUE_INVALID(what="password", reason=f"{name} logs in through {account.source}; change it there")
        if old.startswith(SECRET_PREFIX):
            raise LOGIN_FAILED()  # a token is no password: it must not be worth the account
        await self.login(name, old, actor.address)
        await self.change(name, actor, password=new)

    async def by_secret(self, secret: str, *, kind: str, name: str = "", service: str = "") -> Caller:
        """Raises LOGIN_FAILED."""
        now = self.core.clock()
        row = await self.core.db.read(
            lambda tx: tx.one(
                "SELECT a.name, a.id, a.admin, a.active, s.level, s.expires, s.service FROM secrets s"
                " JOIN accounts a ON a.id = s.account WHERE s.digest = ? AND s.kind = ?",
                (digest_secret(secret), kind),
            )
        )
        if row is None or not row[3] or (row[5] is not None and row[5] <= now):
            raise LOGIN_FAILED()
        if (name and row[0] != name) or row[6] != service:
            raise LOGIN_FAILED()
        return Caller(row[0], row[1], bool(row[2]), Level(row[4]))

    # ---- logging in

    async def login(self, name: str, password: str, address: str) -> Caller:
        """By password or token. Raises LOGIN_FAILED; TOO_MANY after ten failures a minute from one address."""
        proof = hashlib.blake2b(f"{name}\0{password}".encode(), key=self._salt).digest()
        known = await self._remembered(proof)
        if known is not None:
            return known
        now = time.monotonic()
        count, until = self._failures.get((name, address), (0, 0.0))
        if count >= _FAILURES_MAX and until > now:
            raise TOO_MANY(what="failed logins")
        try:
            caller, hashed = await self._login(name, password)
        except LOGIN_FAILED.kind:
            if len(self._failures) > _TABLE_MAX:
                self._failures.clear()
            self._failures[name, address] = (count + 1 if until > now else 1, now + _FAILURE_SECONDS)
            await self._refused(name, address)
            raise
        self._failures.pop((name, address), None)
        if hashed is not None:
            if len(self._known) > _TABLE_MAX:
                self._known.clear()
            self._known[proof] = (caller, now + _REMEMBER_SECONDS, hashed)
        return caller

    async def _remembered(self, proof: bytes) -> Caller | None:
        """argon2 is paid once a minute and login; whether the account is still the same is asked each time."""
        caller, until, hashed = self._known.get(proof, (None, 0.0, ""))
        if caller is None or until <= time.monotonic():
            return None
        row = await self.core.db.read(
            lambda tx: tx.one("SELECT admin, active, password FROM accounts WHERE id = ?", (caller.account,))
        )
        if row is None or not row[1] or (row[2] or "") != hashed:
            del self._known[proof]
            return None
        return Caller(caller.name, caller.account, bool(row[0]), caller.cap)

    async def _login(self, name: str, password: str) -> tuple[Caller, str | None]:
        """With what must stay as it is for the login to be remembered; None: is not remembered."""
        if password.startswith(SECRET_PREFIX):
            return await self.by_secret(password, kind="token", name=name), None
        row = await self.core.db.read(
            lambda tx: tx.one("SELECT id, admin, active, password, source, kind FROM accounts WHERE name = ?", (name,))
        )
        if self.directory is not None and (row is None or row[4] == "ldap"):
            return await self._login_directory(name, password), ""
        hashed = row[3] if row is not None and row[2] and row[5] == "user" else None
        good = len(password) <= PASSWORD_MAX and await asyncio.get_running_loop().run_in_executor(
            self._lane, verify_password, hashed, password
        )
        if not good or row is None:
            raise LOGIN_FAILED()
        return Caller(name, row[0], bool(row[1])), str(hashed)

    async def _login_directory(self, name: str, password: str) -> Caller:
        """The directory says yes or no; its people get an account at their first login."""
        assert self.directory is not None
        if not _ACCOUNT.match(name):
            raise LOGIN_FAILED()
        person = await asyncio.get_running_loop().run_in_executor(
            self._lane, self.directory.authenticate, name, password
        )
        if person is None:
            raise LOGIN_FAILED()
        try:
            account = await self.core.db.read(lambda tx: find_account(tx, name))
        except ACCOUNT_UNKNOWN.kind:
            account = await self.create(name, full_name=person.full_name, source="ldap", actor=Actor("ldap"))
        if not account.active:
            raise LOGIN_FAILED()
        return Caller(name, account.id, account.admin)

    async def _refused(self, name: str, address: str) -> None:
        now = self.core.clock()
        await self.core.db.write(lambda tx: audit(tx, now, Actor(name[:64], address), "login", name[:64], refused=True))


def set_team_member(tx: Tx, org: int, team: int, account: int, member: bool) -> None:
    tx.run("DELETE FROM team_members WHERE team = ? AND account = ?", (team, account))
    if member:
        tx.run("INSERT INTO team_members (team, account) VALUES (?, ?)", (team, account))
        tx.run("INSERT INTO memberships (org, account, owner) VALUES (?, ?, 0) ON CONFLICT DO NOTHING", (org, account))
