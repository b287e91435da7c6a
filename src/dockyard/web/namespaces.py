"""Pages of a user or an organisation: repositories, members and teams, webhooks, retention, tokens."""

from __future__ import annotations

from typing import Any

from dockyard.registry import admin, views
from dockyard.registry.accounts import find_account
from dockyard.registry.errors import ACCOUNT_UNKNOWN, THING_UNKNOWN
from dockyard.registry.webhooks import EVENTS
from dockyard.web.repositories import split
from dockyard.web.visit import Page, Visit

TABS = {
    "user": ("repositories", "webhooks", "retention", "tokens", "account"),
    "org": ("repositories", "members", "webhooks", "retention"),
    "": ("repositories",),
}


async def page(visit: Visit) -> Page:
    name, rest = split(visit.path, "/n/")
    tab = rest[0] if rest else "repositories"
    try:
        account = await visit.read(lambda tx: find_account(tx, name))
    except ACCOUNT_UNKNOWN.kind:
        account = None
    kind = "" if account is None else account.kind
    owner = account is not None and await visit.owns(name)
    tabs = TABS[kind] if owner else ("repositories",)
    if tab not in TABS[kind] or len(rest) > 1:
        raise THING_UNKNOWN(what="page", name=visit.path)
    visit.need(tab in tabs, f"this page is for the owners of {name}")
    shared: dict[str, Any] = {"name": name, "kind": kind, "account": account, "owner": owner, "tabs": tabs, "tab": tab}
    if tab == "repositories":
        return await _repositories(visit, name, shared)
    if tab == "members":
        members = await visit.read(lambda tx: admin.members_of(tx, name))
        teams = await visit.read(lambda tx: admin.teams_of(tx, name))
        grants = await visit.read(lambda tx: admin.grants_of(tx, f"{name}/*"))
        return Page("members.html", shared | {"members": members, "teams": teams, "grants": grants})
    if tab == "webhooks":
        hooks = await visit.read(lambda tx: admin.webhooks_of(tx, name))
        deliveries = await visit.read(lambda tx: admin.deliveries_of(tx, name))
        values = {"hooks": hooks, "deliveries": deliveries, "events": EVENTS}
        return Page("webhooks.html", shared | values, "deliveries.html")
    if tab == "retention":
        return Page("retention.html", shared | {"rules": await visit.read(lambda tx: admin.rules_of(tx, name))})
    if tab == "tokens":
        return Page("tokens.html", shared | {"tokens": await visit.read(lambda tx: admin.secrets_of(tx, name))})
    return Page("account.html", shared)


async def _repositories(visit: Visit, name: str, shared: dict[str, Any]) -> Page:
    text, after, caller = visit.asked("q"), visit.asked("after", 255), visit.visitor.caller
    found = await visit.read(
        lambda tx: views.repositories(tx, caller, text=text, namespace=name, after=after, count=views.PAGE + 1)
    )
    if shared["account"] is None and not found:
        raise THING_UNKNOWN(what="namespace", name=name)
    usage = await visit.read(lambda tx: admin.namespace_usage(tx, name))
    more = f"/n/{name}?after={found[views.PAGE - 1].name}" if len(found) > views.PAGE and not text else ""
    values = {"rows": found[: views.PAGE], "more": more, "text": text, "usage": usage}
    return Page("namespace.html", shared | values, "repository_rows.html")
