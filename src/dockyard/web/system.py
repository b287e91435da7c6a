"""Pages for administrators: storage and collection, accounts, upstreams, settings, audit."""

from __future__ import annotations

import shutil
from typing import Any

import msgspec

from dockyard.registry import admin, views
from dockyard.registry.database import Tx
from dockyard.registry.errors import THING_UNKNOWN
from dockyard.registry.settings import SETTINGS, read_setting
from dockyard.web.visit import Page, Visit

TABS = ("storage", "accounts", "upstreams", "settings", "audit")
_AUDIT_ROWS = 200


async def page(visit: Visit) -> Page:
    tab = visit.path.removeprefix("/system").strip("/") or "storage"
    if tab not in TABS:
        raise THING_UNKNOWN(what="page", name=visit.path)
    visit.need(visit.visitor.caller.admin, "only system administrators may see this page")
    shared: dict[str, Any] = {"tab": tab, "tabs": TABS}
    if tab == "storage":
        jobs = await visit.read(admin.jobs)
        totals = await visit.read(views.totals)
        values = {"jobs": jobs, "totals": totals, "disk": _disk(visit), **await _settings(visit)}
        return Page("storage.html", shared | values, "jobs.html")
    if tab == "accounts":
        return Page("accounts.html", shared | {"accounts": await visit.read(admin.accounts)})
    if tab == "upstreams":
        return Page("upstreams.html", shared | {"upstreams": await visit.read(admin.upstreams)})
    if tab == "settings":
        told = {"told": visit.registry.describe(), "tls": visit.registry.tls.describe()}
        return Page("settings.html", shared | await _settings(visit) | told)
    pattern = visit.asked("q") or "*"
    rows = await visit.read(lambda tx: admin.audit_log(tx, _AUDIT_ROWS, pattern if "*" in pattern else f"*{pattern}*"))
    return Page("audit.html", shared | {"rows": rows, "text": visit.asked("q")}, "audit_rows.html")


async def _settings(visit: Visit) -> dict[str, Any]:
    def query(tx: Tx) -> dict[str, str]:
        return {name: read_setting(tx, name) for name in SETTINGS}

    found = await visit.read(query)
    ldap = msgspec.json.decode(found["ldap"], type=dict[str, Any]) if found["ldap"] else {}
    ldap.pop("bind_password", None)
    del found["ldap"], found["tls"]
    return {"settings": found, "ldap": ldap}


def _disk(visit: Visit) -> dict[str, int] | None:
    """Room on the file system that holds the data; None when blobs are in a bucket."""
    root = getattr(visit.registry.core.blobs, "root", None)
    if root is None:
        return None
    usage = shutil.disk_usage(root)
    return {"total": usage.total, "free": usage.free}
