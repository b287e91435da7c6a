"""LDAP and Active Directory: who may log in, and who is in which team. Blocking (ldap3); callers run it in a lane.

Logging in: find the person with the search account, then bind as what was found. Teams match in one of two ways, as in
DTR: a *group* (its DN and the attribute that lists members), or a *search* (base and filter that members satisfy).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from dockyard.lib.notjson import NOT_JSON
from dockyard.registry.accounts import set_team_member
from dockyard.registry.core import Actor, Core, audit
from dockyard.registry.database import Tx
from dockyard.registry.errors import LDAP_FAILED, VALUE_INVALID

_TIMEOUT = 10
_PAGE = 500


class LdapSettings(msgspec.Struct, frozen=True):
    url: str
    base: str
    bind_dn: str = ""
    bind_password: str = ""
    user_filter: str = "(uid={name})"
    name_attribute: str = "uid"
    full_name_attribute: str = "cn"
    start_tls: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    dn: str
    name: str
    full_name: str


class Directory:
    def __init__(self, settings: LdapSettings) -> None:
        self.settings = settings

    @contextlib.contextmanager
    def _bound(self, dn: str, password: str) -> Iterator[Any]:
        """A connection bound as that DN; None when the directory refuses the password. Raises LDAP_FAILED."""
        import ldap3
        from ldap3.core.exceptions import LDAPBindError, LDAPException, LDAPInvalidCredentialsResult

        if dn and not password:
            yield None  # an empty password is an anonymous bind (RFC 4513 section 5.1.2): never a login
            return
        server = ldap3.Server(self.settings.url, connect_timeout=_TIMEOUT, get_info=ldap3.NONE)
        connection = ldap3.Connection(server, dn or None, password or None, receive_timeout=_TIMEOUT)
        try:
            connection.open()
            if self.settings.start_tls:
                connection.start_tls()
            bound = connection.bind()
            yield connection if bound else None
        except (LDAPBindError, LDAPInvalidCredentialsResult):
            yield None
        except LDAPException as error:
            raise LDAP_FAILED(reason=str(error)[:200]) from error
        finally:
            with contextlib.suppress(LDAPException):
                connection.unbind()

    def _search(
        self, connection: Any, base: str, filter_: str, attributes: list[str], scope: str = "SUBTREE"
    ) -> list[Any]:
        entries = connection.extend.standard.paged_search(
            base, filter_, scope, attributes=attributes, paged_size=_PAGE, generator=True
        )
        return [entry for entry in entries if entry.get("type") == "searchResEntry"]

    def _person(self, entry: Any) -> Person:
        attributes = entry["attributes"]
        return Person(
            entry["dn"], _first(attributes.get(self.settings.name_attribute)).lower(),
            _first(attributes.get(self.settings.full_name_attribute)),
        )  # fmt: skip

    def _people(self, connection: Any, base: str, filter_: str, scope: str = "SUBTREE") -> list[Person]:
        wanted = [self.settings.name_attribute, self.settings.full_name_attribute]
        found = [self._person(entry) for entry in self._search(connection, base, filter_, wanted, scope)]
        return [person for person in found if person.name]

    def authenticate(self, name: str, password: str) -> Person | None:
        """The person, None when unknown or the password is wrong. Raises LDAP_FAILED."""
        from ldap3.utils.conv import escape_filter_chars

        settings = self.settings
        with self._bound(settings.bind_dn, settings.bind_password) as connection:
            if connection is None:
                raise LDAP_FAILED(reason="the search account is refused")
            filter_ = settings.user_filter.replace("{name}", escape_filter_chars(name))
            people = self._people(connection, settings.base, filter_)
        if len(people) != 1:
            return None
        with self._bound(people[0].dn, password) as connection:
            return None if connection is None else people[0]

    def members(self, mode: str, base: str, match: str) -> list[str]:
        """Account names in a team: mode "group" (base = DN, match = member attribute) or "search" (match = filter)."""
        settings = self.settings
        with self._bound(settings.bind_dn, settings.bind_password) as connection:
            if connection is None:
                raise LDAP_FAILED(reason="the search account is refused")
            if mode == "search":
                return sorted({p.name for p in self._people(connection, base, match)})
            groups = self._search(connection, base, "(objectClass=*)", [match], "BASE")
            values = [str(v) for g in groups for v in _many(g["attributes"].get(match))]
            names = set()
            for value in values:
                if "=" not in value:  # memberUid lists names, member and uniqueMember list DNs
                    names.add(value.lower())
                    continue
                names |= {p.name for p in self._people(connection, value, "(objectClass=*)", "BASE")}
            return sorted(names)

    def test(self, name: str = "", password: str = "") -> list[tuple[str, bool, str]]:
        """Step by step, as the settings page shows it: (step, went well, what was seen)."""
        steps: list[tuple[str, bool, str]] = []
        settings = self.settings
        try:
            with self._bound(settings.bind_dn, settings.bind_password) as connection:
                steps.append(("connect", True, settings.url))
                steps.append(("bind the search account", connection is not None, settings.bind_dn or "anonymous"))
                if connection is None:
                    return steps
                found = self._people(connection, settings.base, settings.user_filter.replace("{name}", "*"))
                steps.append(("find people", bool(found), f"{len(found)} below {settings.base}"))
            if name:
                person = self.authenticate(name, password)
                steps.append((f"log in as {name}", person is not None, person.dn if person else "refused"))
        except LDAP_FAILED.kind as error:
            steps.append(("connect" if not steps else "search", False, str(error)))
        return steps


def _many(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple | set) else [value]


def _first(value: Any) -> str:
    values = _many(value)
    return str(values[0]) if values else ""


def parse_settings(text: str) -> LdapSettings:
    """Raises VALUE_INVALID."""
    try:
        settings = msgspec.json.decode(text.encode(), type=LdapSettings)
    except NOT_JSON as error:
        raise VALUE_INVALID(what="LDAP settings", reason=str(error)) from error
    if not settings.url.startswith(("ldap://", "ldaps://")) or "{name}" not in settings.user_filter:
        raise VALUE_INVALID(what="LDAP settings", reason="url is ldap:// or ldaps://, user_filter holds {name}")
    return settings


async def sync_teams(core: Core, members: dict[int, list[str]]) -> int:
    """Make the teams be what the directory says: {team id: names}. Unknown people wait for their first login."""
    now = core.clock()

    def work(tx: Tx) -> int:
        changes = 0
        for team, names in members.items():
            row = tx.one("SELECT org FROM teams WHERE id = ?", (team,))
            if row is None:
                continue
            wanted = {r[0] for name in names for r in tx.all("SELECT id FROM accounts WHERE name = ?", (name,))}
            have = {r[0] for r in tx.all("SELECT account FROM team_members WHERE team = ?", (team,))}
            for account in wanted ^ have:
                set_team_member(tx, row[0], team, account, account in wanted)
                changes += 1
        if changes:
            audit(tx, now, Actor("ldap"), "team.sync", "", f"{changes} changes")
            tx.changed()
        return changes

    return await core.db.write(work)


async def ldap_teams(core: Core) -> list[tuple[int, str, str, str]]:
    rows = await core.db.read(
        lambda tx: tx.all("SELECT id, ldap_mode, ldap_base, ldap_match FROM teams WHERE ldap_mode <> ''")
    )
    return [(r[0], r[1], r[2], r[3]) for r in rows]


async def sync_directory(core: Core, directory: Directory) -> int:
    """All teams that the directory rules; how many memberships changed. Raises LDAP_FAILED."""
    members = {
        team: await asyncio.to_thread(directory.members, mode, base, match)
        for team, mode, base, match in await ldap_teams(core)
    }
    return await sync_teams(core, members)
