"""/api/v0/: administration in JSON. One table of routes; each row says who may use it.

Rights: ``admin`` a system administrator; ``owner`` the owner of the namespace `ns`; ``keeper`` admin level on the
repository `repo`, ``writer`` read-write, ``reader`` read; ``known`` anybody logged in.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.http import Request, Response
from dockyard.lib.notjson import NOT_JSON
from dockyard.registry import admin
from dockyard.registry.access import ANONYMOUS, LEVELS, Caller, Level, level_of, owns
from dockyard.registry.core import Actor, audit
from dockyard.registry.database import Tx
from dockyard.registry.errors import DENIED, THING_UNKNOWN, UNAUTHORIZED, UNSUPPORTED, VALUE_INVALID
from dockyard.registry.ldap import Directory, LdapSettings, parse_settings, sync_directory
from dockyard.registry.settings import SETTINGS, read_setting
from dockyard.registry.tls import parse_saved

if TYPE_CHECKING:
    from dockyard.registry.app import Registry

_BODY_MAX = 1024 * 1024
_LEVELS = {"keeper": Level.ADMIN, "writer": Level.WRITE, "reader": Level.READ}


@dataclass(frozen=True, slots=True)
class Call:
    """One authorised request: path values, body, and who."""

    path: dict[str, str]
    body: dict[str, Any]
    caller: Caller
    actor: Actor

    def text(self, name: str) -> str:
        """Raises VALUE_INVALID when it is missing."""
        value = self.body.get(name)
        if not isinstance(value, str) or not value:
            raise VALUE_INVALID(what=name, reason="a text is needed")
        return value

    def level(self) -> Level:
        word = str(self.body.get("level", ""))
        if word not in LEVELS:
            raise VALUE_INVALID(what="level", reason=", ".join(LEVELS))
        return LEVELS[word]


Function = Callable[[Call], Awaitable[Any]]


class AdminApi:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.core = registry.core
        self.accounts = registry.accounts
        table: list[tuple[str, str, str, Function]] = [
            ("GET", "accounts", "admin", self._list(admin.accounts)),
            ("POST", "accounts", "admin", self.create_account),
            ("PATCH", "accounts/{ns}", "admin", self.change_account),
            ("DELETE", "accounts/{ns}", "admin", self.delete_account),
            ("POST", "accounts/{ns}/password", "owner", self.change_own_password),
            ("GET", "accounts/{ns}/usage", "owner", self._by_path(admin.namespace_usage, "ns")),
            ("GET", "accounts/{ns}/tokens", "owner", self._by_path(admin.secrets_of, "ns")),
            ("POST", "accounts/{ns}/tokens", "owner", self.create_token),
            ("DELETE", "accounts/{ns}/tokens/{id}", "owner", self.revoke_token),
            ("GET", "accounts/{ns}/members", "owner", self._by_path(admin.members_of, "ns")),
            ("PUT", "accounts/{ns}/members/{user}", "owner", self.set_member),
            ("DELETE", "accounts/{ns}/members/{user}", "owner", self.remove_member),
            ("GET", "accounts/{ns}/teams", "owner", self._by_path(admin.teams_of, "ns")),
            ("POST", "accounts/{ns}/teams", "owner", self.create_team),
            ("DELETE", "accounts/{ns}/teams/{team}", "owner", self.delete_team),
            ("PUT", "accounts/{ns}/teams/{team}/members/{user}", "owner", self.set_team_member),
            ("DELETE", "accounts/{ns}/teams/{team}/members/{user}", "owner", self.remove_team_member),
            ("PUT", "accounts/{ns}/teams/{team}/ldap", "admin", self.set_team_ldap),
            ("PUT", "accounts/{ns}/grant", "owner", self.grant_namespace),
            ("GET", "accounts/{ns}/webhooks", "owner", self._by_path(admin.webhooks_of, "ns")),
            ("POST", "accounts/{ns}/webhooks", "owner", self._change_namespace(admin.create_webhook)),
            ("DELETE", "accounts/{ns}/webhooks/{id}", "owner", self._delete_in_namespace(admin.delete_webhook)),
            ("GET", "accounts/{ns}/deliveries", "owner", self._by_path(admin.deliveries_of, "ns")),
            ("POST", "accounts/{ns}/deliveries/{id}/again", "owner", self.deliver_again),
            ("GET", "accounts/{ns}/rules", "owner", self._by_path(admin.rules_of, "ns")),
            ("POST", "accounts/{ns}/rules", "owner", self._change_namespace(admin.create_rule)),
            ("DELETE", "accounts/{ns}/rules/{id}", "owner", self._delete_in_namespace(admin.delete_rule)),
            ("POST", "accounts/{ns}/retention", "owner", self.run_retention),
            ("POST", "repositories", "known", self.create_repository),
            ("GET", "repositories/{repo}/-/grants", "keeper", self._by_path(admin.grants_of, "repo")),
            ("PUT", "repositories/{repo}/-/grant", "keeper", self.grant),
            ("GET", "repositories/{repo}/-/mirrors", "keeper", self._by_path(admin.mirrors_of, "repo")),
            ("POST", "repositories/{repo}/-/mirrors", "keeper", self.create_mirror),
            ("POST", "repositories/{repo}/-/mirrors/{id}/run", "keeper", self.run_mirror),
            ("DELETE", "repositories/{repo}/-/mirrors/{id}", "keeper", self.delete_mirror),
            ("DELETE", "repositories/{repo}/-/manifests/{reference}", "writer", self.delete_manifest),
            ("GET", "repositories/{repo}", "reader", self._by_path(admin.repository, "repo")),
            ("PATCH", "repositories/{repo}", "keeper", self.change_repository),
            ("DELETE", "repositories/{repo}", "keeper", self.delete_repository),
            ("GET", "upstreams", "admin", self._list(admin.upstreams)),
            ("POST", "upstreams", "admin", self.create_upstream),
            ("DELETE", "upstreams/{ns}", "admin", self.delete_upstream),
            ("GET", "audit", "admin", self._list(admin.audit_log)),
            ("GET", "jobs", "admin", self._list(admin.jobs)),
            ("POST", "gc", "admin", self.collect),
            ("POST", "gc/{id}/stop", "admin", self.stop_collection),
            ("GET", "settings", "admin", self.get_settings),
            ("PUT", "settings/{name}", "admin", self.set_setting),
            ("POST", "ldap/test", "admin", self.test_ldap),
            ("POST", "ldap/sync", "admin", self.sync_ldap),
        ]
        self._routes = [(method, _pattern(path), right, function) for method, path, right, function in table]

    async def handle(self, request: Request) -> Response:
        """Logins are Basic (password or personal token). A bearer token is for the repositories that it names, never
        for administration: otherwise a robot's token that may only read could do all that its account may."""
        identity = await self.registry.gate.identify(request)
        caller = identity.caller if identity.claims is None else ANONYMOUS
        actor = Actor(caller.name, request.peer.address)
        body = await _json(request)
        try:
            answer = await self.perform(request.method, request.path.removeprefix("/api/v0/"), body, caller, actor)
        except UNAUTHORIZED.kind as error:
            error.evidence.setdefault("headers", {"WWW-Authenticate": 'Basic realm="dockyard registry"'})
            raise
        return Response(200, {"Content-Type": "application/json"}, msgspec.json.encode(answer))

    async def perform(self, method: str, path: str, body: dict[str, Any], caller: Caller, actor: Actor) -> Any:
        """One operation of the table, if `caller` may. Raises THING_UNKNOWN, DENIED, UNAUTHORIZED, and its own."""
        for known, pattern, right, function in self._routes:
            match = pattern.fullmatch(path) if known == method else None
            if match is not None:
                await self.authorise(caller, actor, right, match.groupdict(), f"{method} {path}")
                return await function(Call(match.groupdict(), body, caller, actor))
        raise THING_UNKNOWN(what="operation", name=f"{method} {path[:200]}")

    async def authorise(self, caller: Caller, actor: Actor, right: str, path: dict[str, str], what: str) -> None:
        """Raises DENIED (and records it), UNAUTHORIZED."""
        if await self.core.db.read(lambda tx: may(tx, caller, right, path)):
            return
        if caller.account is None:
            raise UNAUTHORIZED()
        now = self.core.clock()
        await self.core.db.write(lambda tx: audit(tx, now, actor, "admin", what, right, refused=True))
        raise DENIED(reason=f"{what} needs the right {right}")

    # ---- makers of functions

    def _list(self, query: Callable[[Tx], Any]) -> Function:
        async def run(_: Call) -> Any:
            return await self.core.db.search(query)

        return run

    def _by_path(self, query: Callable[..., Any], part: str) -> Function:
        async def run(call: Call) -> Any:
            return await self.core.db.search(lambda tx: query(tx, call.path[part]))

        return run

    async def change(self, work: Callable[..., Any], actor: Actor, *args: Any) -> Any:
        now = self.core.clock()
        return await self.core.db.write(lambda tx: work(tx, now, actor, *args))

    def _change_namespace(self, work: Callable[..., Any]) -> Function:
        async def run(call: Call) -> Any:
            return {"id": await self.change(work, call.actor, call.path["ns"], call.body)}

        return run

    def _delete_in_namespace(self, work: Callable[..., Any]) -> Function:
        async def run(call: Call) -> Any:
            await self.change(work, call.actor, call.path["ns"], int(call.path["id"]))
            return {}

        return run

    # ---- accounts

    async def create_account(self, call: Call) -> Any:
        kind = str(call.body.get("kind", "user"))
        if kind not in {"user", "org"}:
            raise VALUE_INVALID(what="kind", reason="user or org")
        account = await self.accounts.create(
            call.text("name"), kind=kind, password=str(call.body.get("password", "")),
            admin=bool(call.body.get("admin")), full_name=str(call.body.get("full_name", "")), actor=call.actor,
        )  # fmt: skip
        return {"name": account.name, "kind": account.kind}

    async def change_account(self, call: Call) -> Any:
        body = call.body
        await self.accounts.change(
            call.path["ns"], call.actor, password=body.get("password"), admin=body.get("admin"),
            active=body.get("active"), full_name=body.get("full_name"), quota=body.get("quota", False),
        )  # fmt: skip
        return {}

    async def change_own_password(self, call: Call) -> Any:
        if call.caller.name != call.path["ns"]:
            raise DENIED(reason="this operation is for the account's own person; administrators set passwords")
        await self.accounts.change_own_password(call.caller.name, call.text("old"), call.text("new"), call.actor)
        return {}

    async def delete_account(self, call: Call) -> Any:
        await self.accounts.delete(call.path["ns"], call.actor)
        return {}

    async def create_token(self, call: Call) -> Any:
        level = call.level() if "level" in call.body else Level.ADMIN
        days = call.body.get("days")
        secret = await self.accounts.create_secret(
            call.path["ns"], call.actor, label=str(call.body.get("label", "")), level=min(level, call.caller.cap),
            seconds=float(days) * 86400 if days else None,
        )  # fmt: skip
        return {"token": secret}

    async def revoke_token(self, call: Call) -> Any:
        await self.accounts.revoke_secret(call.path["ns"], int(call.path["id"]), call.actor)
        return {}

    async def set_member(self, call: Call) -> Any:
        owner = bool(call.body.get("owner"))
        await self.accounts.set_member(call.path["ns"], call.path["user"], call.actor, owner=owner)
        return {}

    async def remove_member(self, call: Call) -> Any:
        await self.accounts.set_member(call.path["ns"], call.path["user"], call.actor, member=False)
        return {}

    async def create_team(self, call: Call) -> Any:
        return {"id": await self.accounts.create_team(call.path["ns"], call.text("name"), call.actor)}

    async def delete_team(self, call: Call) -> Any:
        await self.accounts.delete_team(call.path["ns"], call.path["team"], call.actor)
        return {}

    async def set_team_member(self, call: Call) -> Any:
        await self.accounts.set_team_member(call.path["ns"], call.path["team"], call.path["user"], call.actor)
        return {}

    async def remove_team_member(self, call: Call) -> Any:
        path = call.path
        await self.accounts.set_team_member(path["ns"], path["team"], path["user"], call.actor, member=False)
        return {}

    async def grant_namespace(self, call: Call) -> Any:
        await self._grant(f"{call.path['ns']}/*", call)
        return {}

    async def grant(self, call: Call) -> Any:
        await self._grant(call.path["repo"], call)
        return {}

    async def _grant(self, object_: str, call: Call) -> None:
        team, user = str(call.body.get("team", "")), str(call.body.get("user", ""))
        if bool(team) == bool(user):
            raise VALUE_INVALID(what="grant", reason="name a team or a user")
        await self.accounts.grant(object_, call.level(), call.actor, team=team, user=user)

    # ---- content

    async def create_repository(self, call: Call) -> Any:
        name = call.text("name")
        if await self.core.db.read(lambda tx: level_of(tx, call.caller, name)) < Level.ADMIN:
            raise DENIED(reason=f"{call.caller.name} does not own the namespace of {name}")
        await self.change(admin.create_repository, call.actor, name, bool(call.body.get("public")))
        return {"name": name}

    async def change_repository(self, call: Call) -> Any:
        await self.change(admin.change_repository, call.actor, call.path["repo"], call.body)
        return {}

    async def delete_repository(self, call: Call) -> Any:
        await self.change(admin.delete_repository, call.actor, call.path["repo"])
        return {}

    async def delete_manifest(self, call: Call) -> Any:
        """A tag, or a manifest with every tag of it."""
        if not self.core.config.delete:
            raise UNSUPPORTED(reason="deletion is switched off")
        name, reference = call.path["repo"], call.path["reference"]
        delete = self.registry.content.delete_manifest if ":" in reference else self.registry.content.delete_tag
        await delete(name, reference, call.actor)
        return {}

    async def deliver_again(self, call: Call) -> Any:
        await self.registry.deliverer.again(call.path["ns"], int(call.path["id"]))
        return {}

    async def run_retention(self, call: Call) -> Any:
        retention = self.registry.retention
        dry = call.body.get("dry_run", True)
        removals = await (retention.plan(call.path["ns"]) if dry else retention.run(call.path["ns"], call.actor))
        return {"dry_run": bool(dry), "tags": [f"{r.repository}:{r.tag}: {r.reason}" for r in removals]}

    async def create_mirror(self, call: Call) -> Any:
        return {"id": await self.change(admin.create_mirror, call.actor, call.path["repo"], call.body)}

    async def run_mirror(self, call: Call) -> Any:
        mirror = await self.registry.mirrors.get(int(call.path["id"]))
        if mirror.repository != call.path["repo"]:
            raise THING_UNKNOWN(what="mirror", name=call.path["id"])
        return {"outcome": await self.registry.mirrors.copy(mirror)}

    async def delete_mirror(self, call: Call) -> Any:
        await self.change(admin.delete_mirror, call.actor, call.path["repo"], int(call.path["id"]))
        return {}

    async def create_upstream(self, call: Call) -> Any:
        await self.change(admin.create_upstream, call.actor, call.body)
        return {}

    async def delete_upstream(self, call: Call) -> Any:
        await self.change(admin.delete_upstream, call.actor, call.path["ns"])
        return {}

    # ---- the system

    async def collect(self, call: Call) -> Any:
        progress = await self.registry.collector.begin(call.actor, dry_run=bool(call.body.get("dry_run")))
        untagged = await self.core.db.read(lambda tx: read_setting(tx, "untagged_seconds"))
        work = self.registry.collector.collect(progress, untagged_seconds=float(untagged) if untagged else None)

        async def run() -> None:
            await work

        task = self.registry.spawn(run())
        if call.body.get("wait"):
            await asyncio.shield(task)
        return {"job": progress.job, "log": progress.sentence()}

    async def stop_collection(self, call: Call) -> Any:
        await self.registry.collector.stop(int(call.path["id"]))
        return {}

    async def get_settings(self, _: Call) -> Any:
        def query(tx: Tx) -> dict[str, str]:
            found = {name: read_setting(tx, name) for name in SETTINGS}
            if found["ldap"]:
                settings = msgspec.structs.asdict(parse_settings(found["ldap"])) | {"bind_password": ""}
                found["ldap"] = msgspec.json.encode(settings).decode()
            if found["tls"]:
                found["tls"] = msgspec.json.encode({"certificate": parse_saved(found["tls"]).certificate}).decode()
            return found

        return await self.core.db.read(query)

    async def set_setting(self, call: Call) -> Any:
        name, value = call.path["name"], str(call.body.get("value", ""))
        if name == "ldap" and value:
            value = await self._complete_ldap(value)
        if name == "tls" and value:
            parse_saved(value)
        if name.endswith(("_seconds", "_days")) and value and not (value.isascii() and value.isdigit() and len(value) < 12):
            raise VALUE_INVALID(what=name, reason="a whole number")
        await self.change(admin.set_setting, call.actor, name, value)
        await self.registry.use_settings()
        return {}

    async def _complete_ldap(self, value: str) -> str:
        """Nobody is shown the search account's password, so an empty one means: as it was, for the same account."""
        settings = parse_settings(value)
        before = await self.core.db.read(lambda tx: read_setting(tx, "ldap"))
        known = parse_settings(before) if before else None
        if known is None or settings.bind_password or (known.url, known.bind_dn) != (settings.url, settings.bind_dn):
            return value
        return msgspec.json.encode(msgspec.structs.replace(settings, bind_password=known.bind_password)).decode()

    def _directory(self) -> Directory:
        directory = self.registry.accounts.directory
        if directory is None:
            raise THING_UNKNOWN(what="directory", name="no LDAP settings")
        return directory

    async def test_ldap(self, call: Call) -> Any:
        body = dict(call.body)
        name, password = str(body.pop("name", "")), str(body.pop("password", ""))
        directory = Directory(_ldap_settings(body)) if body else self._directory()
        steps = await asyncio.to_thread(directory.test, name, password)
        return [{"step": step, "ok": ok, "seen": seen} for step, ok, seen in steps]

    async def sync_ldap(self, _: Call) -> Any:
        return {"changes": await sync_directory(self.core, self._directory())}

    async def set_team_ldap(self, call: Call) -> Any:
        body = call.body
        await self.change(
            admin.set_team_ldap, call.actor, call.path["ns"], call.path["team"], str(body.get("mode", "")),
            str(body.get("base", "")), str(body.get("match", "")),
        )  # fmt: skip
        return {}


def may(tx: Tx, caller: Caller, right: str, path: dict[str, str]) -> bool:
    if caller.account is None:
        return right == "reader" and level_of(tx, caller, path["repo"]) >= Level.READ
    if caller.admin and caller.cap >= Level.ADMIN:
        return True
    if right == "known":
        return True
    if right == "owner":
        return caller.cap >= Level.ADMIN and owns(tx, caller, path["ns"])
    return right in _LEVELS and level_of(tx, caller, path["repo"]) >= _LEVELS[right]


def _ldap_settings(body: dict[str, Any]) -> LdapSettings:
    try:
        return msgspec.convert(body, LdapSettings)
    except msgspec.ValidationError as error:
        raise VALUE_INVALID(what="LDAP settings", reason=str(error)) from error


def _pattern(path: str) -> re.Pattern[str]:
    text = path.replace("{repo}", "(?P<repo>.+?)").replace("{id}", r"(?P<id>\d{1,18})")
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text))


async def _json(request: Request) -> dict[str, Any]:
    raw = await request.body(_BODY_MAX)
    if not raw:
        return {}
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except NOT_JSON as error:
        raise VALUE_INVALID(what="body", reason=str(error)) from error
