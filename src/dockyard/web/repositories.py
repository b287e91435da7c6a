"""Pages of repositories: the list that is searched as one types, and one repository with its tabs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from dockyard.registry import admin, views
from dockyard.registry.access import Level
from dockyard.registry.database import Tx
from dockyard.registry.errors import DENIED, THING_UNKNOWN, UNAUTHORIZED
from dockyard.registry.names import namespace_of
from dockyard.web.visit import Page, Visit

TABS = ("tags", "access", "mirrors", "settings")


async def listing(visit: Visit) -> Page:
    text, after, caller = visit.asked("q"), visit.asked("after", 255), visit.visitor.caller

    def query(tx: Tx) -> tuple[list[views.RepositoryRow], list[tuple[str, str, int]]]:
        found = views.repositories(tx, caller, text=text, after=after, count=views.PAGE + 1)
        return found, views.namespaces(tx, caller)

    found, spaces = await visit.read(query)
    more = f"/?{urlencode({'q': text, 'after': found[views.PAGE - 1].name})}" if len(found) > views.PAGE and not text else ""
    values = {"rows": found[: views.PAGE], "more": more, "text": text, "after": after, "namespaces": spaces}
    return Page("repositories.html", values, "repository_rows.html")


def split(path: str, prefix: str) -> tuple[str, list[str]]:
    """/r/team/app/-/tags/v1 -> ("team/app", ["tags", "v1"]). `-` alone can be no part of a name."""
    name, _, rest = path.removeprefix(prefix).partition("/-/")
    return name.strip("/"), [part for part in rest.split("/") if part]


async def page(visit: Visit) -> Page:
    name, rest = split(visit.path, "/r/")
    tab = rest[0] if rest else "tags"
    level = await visit.level(name)
    if level < Level.READ:
        if visit.visitor.caller.account is None:
            raise UNAUTHORIZED()
        raise THING_UNKNOWN(what="repository", name=name)
    about = await visit.read(lambda tx: admin.repository(tx, name))
    shared = {
        "name": name, "about": about, "level": level, "namespace": namespace_of(name), "tab": tab,
        "writes": level >= Level.WRITE, "keeps": level >= Level.ADMIN,
    }  # fmt: skip
    if tab == "tags" and len(rest) == 2:
        return await _tag(visit, name, rest[1], shared)
    if tab == "tags":
        return await _tags(visit, name, shared)
    if tab not in TABS:
        raise THING_UNKNOWN(what="page", name=visit.path)
    if level < Level.ADMIN:
        raise DENIED(reason=f"this page of {name} needs admin; you have {level.word}")
    if tab == "access":
        grants = await visit.read(lambda tx: admin.grants_of(tx, name))
        teams = await visit.read(lambda tx: admin.teams_of(tx, namespace_of(name)))
        return Page("repository_access.html", shared | {"grants": grants, "teams": teams})
    if tab == "mirrors":
        mirrors = await visit.read(lambda tx: admin.mirrors_of(tx, name))
        return Page("repository_mirrors.html", shared | {"mirrors": mirrors})
    return Page("repository_settings.html", shared)


async def _tags(visit: Visit, name: str, shared: dict[str, Any]) -> Page:
    text, number = visit.asked("q"), visit.number("page")
    found = await visit.read(lambda tx: views.tags(tx, name, text=text, page=number))
    values = {"tags": found[: views.PAGE], "text": text, "page": number, "more": len(found) > views.PAGE}
    return Page("tags.html", shared | values, "tag_rows.html")


async def _tag(visit: Visit, name: str, reference: str, shared: dict[str, Any]) -> Page:
    blobs = await visit.read(lambda tx: views.configs_wanted(tx, name, reference))
    store = visit.registry.core.blobs
    read = {b.digest: b"".join([piece async for piece in store.read(b.location, 0, b.size)]) for b in blobs}
    found = await visit.read(lambda tx: views.detail(tx, name, reference, read))
    if found is None:
        raise THING_UNKNOWN(what="tag", name=f"{name}:{reference}")
    return Page("tag.html", shared | {"reference": reference, "detail": found})
