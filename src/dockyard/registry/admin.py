"""Administration that is more than one table row: repositories, webhooks, rules, upstreams, mirrors, settings, lists.

Each function is a transaction: it checks what exists, changes it, and writes the audit record with it.
"""

from __future__ import annotations

import fnmatch
from typing import Any

from dockyard.registry.addresses import check_url
from dockyard.registry.core import Actor, audit, repository_id, used_bytes
from dockyard.registry.database import Tx
from dockyard.registry.errors import ACCOUNT_UNKNOWN, REPOSITORY_EXISTS, THING_UNKNOWN, VALUE_INVALID
from dockyard.registry.names import LIBRARY, check_name, namespace_of
from dockyard.registry.settings import SECRET, SETTINGS, write_setting
from dockyard.registry.webhooks import EVENTS, Event, emit

Row = dict[str, Any]
_TEXT_MAX = 100_000


def rows(columns: str, found: list[tuple[Any, ...]]) -> list[Row]:
    """Name the columns of what was found; `columns` as in the SELECT, with `AS` already resolved."""
    names = columns.split()
    return [dict(zip(names, row, strict=True)) for row in found]


# ---- repositories


def create_repository(tx: Tx, now: float, actor: Actor, name: str, public: bool) -> None:
    check_name(name)
    namespace = namespace_of(name)
    if namespace != LIBRARY and tx.one("SELECT 1 FROM accounts WHERE name = ?", (namespace,)) is None:
        raise ACCOUNT_UNKNOWN(name=namespace)
    if tx.one("SELECT 1 FROM repositories WHERE name = ?", (name,)) is not None:
        raise REPOSITORY_EXISTS(name=name)
    tx.run(
        "INSERT INTO repositories (name, namespace, public, created, updated) VALUES (?, ?, ?, ?, ?)",
        (name, namespace, int(public), now, now),
    )
    emit(tx, now, Event("REPO_CREATED", name, actor=actor.name))
    audit(tx, now, actor, "repository.create", name, "public" if public else "private")
    tx.changed()


def change_repository(tx: Tx, now: float, actor: Actor, name: str, values: Row) -> None:
    """`values`: public, description, readme, immutable (tag patterns)."""
    id_ = repository_id(tx, name)
    for column, value in values.items():
        if column not in {"public", "description", "readme", "immutable"}:
            raise VALUE_INVALID(what="repository setting", reason=column)
        stored = int(bool(value)) if column == "public" else str(value)[:_TEXT_MAX]
        tx.run(f"UPDATE repositories SET {column} = ? WHERE id = ?", (stored, id_))
    emit(tx, now, Event("REPO_UPDATED", name, actor=actor.name))
    audit(tx, now, actor, "repository.change", name, " ".join(sorted(values)))
    tx.changed()


def delete_repository(tx: Tx, now: float, actor: Actor, name: str) -> None:
    emit(tx, now, Event("REPO_DELETED", name, actor=actor.name))
    tx.run("DELETE FROM repositories WHERE id = ?", (repository_id(tx, name),))
    audit(tx, now, actor, "repository.delete", name)
    tx.changed()


def repository(tx: Tx, name: str) -> Row:
    found = tx.one(
        "SELECT id, name, namespace, public, description, readme, immutable, stars, pulls, created, updated"
        " FROM repositories WHERE name = ?",
        (name,),
    )
    if found is None:
        raise THING_UNKNOWN(what="repository", name=name)
    return rows("id name namespace public description readme immutable stars pulls created updated", [found])[0]


def grants_of(tx: Tx, name: str) -> list[Row]:
    """Who may do what, grants on the whole namespace included."""
    return rows(
        "level whole team user",
        tx.all(
            "SELECT g.level, g.repository IS NULL, o.name || '/' || t.name, a.name FROM grants g LEFT JOIN teams t"
            " ON t.id = g.team LEFT JOIN accounts o ON o.id = t.org LEFT JOIN accounts a ON a.id = g.account WHERE"
            " g.namespace = ? AND (g.repository IS NULL OR g.repository = (SELECT id FROM repositories WHERE name = ?))"
            " ORDER BY g.level DESC, 3, 4",
            (namespace_of(name), name),
        ),
    )


# ---- webhooks


def create_webhook(tx: Tx, now: float, actor: Actor, namespace: str, values: Row) -> int:
    events = [e for e in (values.get("events") or []) if e]
    if not events or any(e not in EVENTS for e in events):
        raise VALUE_INVALID(what="events", reason="some of " + ", ".join(EVENTS))
    form = str(values.get("form", "dtr"))
    if form not in {"dtr", "hub"}:
        raise VALUE_INVALID(what="form", reason="dtr or hub")
    url = check_url(str(values.get("url", "")))
    row = tx.one(
        "INSERT INTO webhooks (namespace, repository, url, events, form, secret, created) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " RETURNING id",
        (namespace, str(values.get("repository", "")), url, " ".join(events), form, str(values.get("secret", "")), now),
    )
    audit(tx, now, actor, "webhook.create", namespace, url)
    assert row is not None
    return int(row[0])


def delete_webhook(tx: Tx, now: float, actor: Actor, namespace: str, id_: int) -> None:
    _delete(tx, "webhooks", namespace, id_, "webhook")
    audit(tx, now, actor, "webhook.delete", namespace, str(id_))


def webhooks_of(tx: Tx, namespace: str) -> list[Row]:
    return rows(
        "id repository url events form active",
        tx.all("SELECT id, repository, url, events, form, active FROM webhooks WHERE namespace = ? ORDER BY id",
               (namespace,)),
    )  # fmt: skip


def deliveries_of(tx: Tx, namespace: str, limit: int = 100) -> list[Row]:
    return rows(
        "id webhook event created attempts status answer finished due payload",
        tx.all(
            "SELECT d.id, d.webhook, d.event, d.created, d.attempts, d.status, d.answer, d.finished, d.due, d.payload"
            " FROM deliveries d JOIN webhooks w ON w.id = d.webhook WHERE w.namespace = ? ORDER BY d.id DESC LIMIT ?",
            (namespace, limit),
        ),
    )


def _delete(tx: Tx, table: str, namespace: str, id_: int, what: str) -> None:
    if tx.run(f"DELETE FROM {table} WHERE id = ? AND namespace = ?", (id_, namespace)) == 0:
        raise THING_UNKNOWN(what=what, name=str(id_))


# ---- retention rules


def create_rule(tx: Tx, now: float, actor: Actor, namespace: str, values: Row) -> int:
    row = tx.one(
        "INSERT INTO rules (namespace, repository, tags, keep_last, keep_days, pulled_days, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (namespace, str(values.get("repository") or f"{namespace}/*"), str(values.get("tags") or "*"),
         _number(values, "keep_last"), _number(values, "keep_days"), _number(values, "pulled_days"), now),
    )  # fmt: skip
    said = " ".join(f"{key}={value}" for key, value in values.items() if value not in {"", None})
    audit(tx, now, actor, "rule.create", namespace, said)
    assert row is not None
    return int(row[0])


def delete_rule(tx: Tx, now: float, actor: Actor, namespace: str, id_: int) -> None:
    _delete(tx, "rules", namespace, id_, "rule")
    audit(tx, now, actor, "rule.delete", namespace, str(id_))


def rules_of(tx: Tx, namespace: str) -> list[Row]:
    return rows(
        "id repository tags keep_last keep_days pulled_days",
        tx.all("SELECT id, repository, tags, keep_last, keep_days, pulled_days FROM rules WHERE namespace = ?"
               " ORDER BY id", (namespace,)),
    )  # fmt: skip


def _number(values: Row, name: str) -> int | None:
    value = values.get(name)
    if value in {None, ""}:
        return None
    if not str(value).isascii() or not str(value).isdigit():
        raise VALUE_INVALID(what=name, reason="a number, or nothing")
    return int(str(value))


# ---- upstreams and mirrors


def create_upstream(tx: Tx, now: float, actor: Actor, values: Row) -> None:
    prefix, url = check_name(str(values.get("prefix", ""))), check_url(str(values.get("url", "")))
    if "/" in prefix:
        raise VALUE_INVALID(what="prefix", reason="one name without /")
    tx.run("DELETE FROM upstreams WHERE prefix = ?", (prefix,))
    tx.run(
        "INSERT INTO upstreams (host, prefix, url, username, password, fresh_seconds) VALUES (?, ?, ?, ?, ?, ?)",
        (str(values.get("host") or prefix), prefix, url, str(values.get("username", "")),
         str(values.get("password", "")), float(values.get("fresh_seconds") or 300.0)),
    )  # fmt: skip
    audit(tx, now, actor, "upstream.create", prefix, url)
    tx.changed()


def delete_upstream(tx: Tx, now: float, actor: Actor, prefix: str) -> None:
    if tx.run("DELETE FROM upstreams WHERE prefix = ?", (prefix,)) == 0:
        raise THING_UNKNOWN(what="upstream", name=prefix)
    audit(tx, now, actor, "upstream.delete", prefix)
    tx.changed()


def upstreams(tx: Tx) -> list[Row]:
    return rows("host prefix url username fresh_seconds",
                tx.all("SELECT host, prefix, url, username, fresh_seconds FROM upstreams ORDER BY prefix"))  # fmt: skip


def create_mirror(tx: Tx, now: float, actor: Actor, name: str, values: Row) -> int:
    direction = str(values.get("direction", ""))
    if direction not in {"poll", "push"}:
        raise VALUE_INVALID(what="direction", reason="poll or push")
    row = tx.one(
        "INSERT INTO mirrors (repository, direction, remote, tags, username, password, every_seconds)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (check_name(name), direction, check_url(str(values.get("remote", ""))), str(values.get("tags") or "*"),
         str(values.get("username", "")), str(values.get("password", "")),
         max(30.0, float(values.get("every_seconds") or 3600.0))),
    )  # fmt: skip
    audit(tx, now, actor, "mirror.create", name, f"{direction} {values.get('remote')}")
    assert row is not None
    return int(row[0])


def delete_mirror(tx: Tx, now: float, actor: Actor, name: str, id_: int) -> None:
    if tx.run("DELETE FROM mirrors WHERE id = ? AND repository = ?", (id_, name)) == 0:
        raise THING_UNKNOWN(what="mirror", name=str(id_))
    audit(tx, now, actor, "mirror.delete", name, str(id_))


def mirrors_of(tx: Tx, name: str) -> list[Row]:
    return rows(
        "id direction remote tags every_seconds last outcome",
        tx.all("SELECT id, direction, remote, tags, every_seconds, last, outcome FROM mirrors WHERE repository = ?"
               " ORDER BY id", (name,)),
    )  # fmt: skip


# ---- settings, lists


def set_setting(tx: Tx, now: float, actor: Actor, name: str, value: str) -> None:
    if name not in SETTINGS:
        raise THING_UNKNOWN(what="setting", name=name)
    write_setting(tx, name, value)
    audit(tx, now, actor, "setting", name, "" if name in SECRET else value)
    tx.changed()


def audit_log(tx: Tx, limit: int = 200, pattern: str = "*") -> list[Row]:
    found = rows(
        "at actor address action object detail refused",
        tx.all("SELECT at, actor, address, action, object, detail, refused FROM audit ORDER BY id DESC LIMIT ?",
               (limit,)),
    )  # fmt: skip
    return [row for row in found if fnmatch.fnmatchcase(row["object"], pattern)]


def accounts(tx: Tx) -> list[Row]:
    return rows(
        "name kind admin active source full_name quota",
        tx.all("SELECT name, kind, admin, active, source, full_name, quota FROM accounts ORDER BY name"),
    )


def namespace_usage(tx: Tx, namespace: str) -> Row:
    row = tx.one("SELECT quota FROM accounts WHERE name = ?", (namespace,))
    return {"namespace": namespace, "used": used_bytes(tx, namespace), "quota": None if row is None else row[0]}


def members_of(tx: Tx, org: str) -> list[Row]:
    return rows(
        "name owner",
        tx.all("SELECT a.name, m.owner FROM memberships m JOIN accounts a ON a.id = m.account JOIN accounts o"
               " ON o.id = m.org WHERE o.name = ? ORDER BY a.name", (org,)),
    )  # fmt: skip


def teams_of(tx: Tx, org: str) -> list[Row]:
    found = rows(
        "id name ldap_mode ldap_base ldap_match",
        tx.all("SELECT t.id, t.name, t.ldap_mode, t.ldap_base, t.ldap_match FROM teams t JOIN accounts o"
               " ON o.id = t.org WHERE o.name = ? ORDER BY t.name", (org,)),
    )  # fmt: skip
    for team in found:
        team["members"] = [
            r[0] for r in tx.all("SELECT a.name FROM team_members m JOIN accounts a ON a.id = m.account"
                                 " WHERE m.team = ? ORDER BY a.name", (team["id"],))
        ]  # fmt: skip
    return found


def set_team_ldap(tx: Tx, now: float, actor: Actor, org: str, team: str, mode: str, base: str, match: str) -> None:
    if mode not in {"", "group", "search"}:
        raise VALUE_INVALID(what="LDAP matching", reason="group, search, or nothing")
    changed = tx.run(
        "UPDATE teams SET ldap_mode = ?, ldap_base = ?, ldap_match = ? WHERE name = ? AND org ="
        " (SELECT id FROM accounts WHERE name = ?)",
        (mode, base, match, team, org),
    )
    if changed == 0:
        raise THING_UNKNOWN(what="team", name=f"{org}/{team}")
    audit(tx, now, actor, "team.ldap", f"{org}/{team}", f"{mode} {base} {match}")


def jobs(tx: Tx, limit: int = 50) -> list[Row]:
    return rows(
        "id kind state dry_run actor started finished done freed log",
        tx.all("SELECT id, kind, state, dry_run, actor, started, finished, done, freed, log FROM jobs"
               " ORDER BY id DESC LIMIT ?", (limit,)),
    )  # fmt: skip


def secrets_of(tx: Tx, name: str) -> list[Row]:
    return rows(
        "id label level created expires",
        tx.all("SELECT s.id, s.label, s.level, s.created, s.expires FROM secrets s JOIN accounts a ON a.id = s.account"
               " WHERE a.name = ? AND s.kind = 'token' ORDER BY s.id", (name,)),
    )  # fmt: skip
