"""/v1/_ping and /v1/search: what `docker search` and `podman search` ask a registry, and the search of the pages."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from dockyard.http import Request, Response
from dockyard.registry.access import ANONYMOUS, Caller, visible_sql
from dockyard.registry.core import Core
from dockyard.registry.database import Tx
from dockyard.registry.gate import CATALOG, Gate

_DEFAULT = 25
_MOST = 100
_QUERY_MAX = 100
_TRIGRAM = 3


class Search:
    def __init__(self, core: Core, gate: Gate) -> None:
        self.core = core
        self.gate = gate

    def ping(self, _: Request) -> Response:
        """Standalone makes docker send its login to /v1/search each time."""
        return Response(
            200, {"Content-Type": "application/json", "X-Docker-Registry-Standalone": "true",
                  "X-Docker-Registry-Version": "0.9.0"}, b"true",
        )  # fmt: skip

    async def handle(self, request: Request) -> Response:
        """No login is needed: without one only public repositories are found."""
        identity = await self.gate.identify(request)
        made_for_it = identity.claims is None or bool(identity.claims.access.get(CATALOG))
        caller = identity.caller if made_for_it else ANONYMOUS
        text = request.query_get("q")[:_QUERY_MAX]
        asked = request.query_get("n")
        count = min(max(int(asked), 1), _MOST) if asked.isascii() and asked.isdigit() and len(asked) < 5 else _DEFAULT
        found = await self.core.db.search(lambda tx: find(tx, caller, text, count))
        results = [
            {"name": name, "description": description, "star_count": stars, "is_official": "/" not in name,
             "is_automated": False, "is_trusted": False}
            for name, description, stars, *_ in found
        ]  # fmt: skip
        body = {
            "num_results": len(results), "num_pages": 1, "page": 1, "page_size": count, "query": text,
            "results": results,
        }  # fmt: skip
        return Response(200, {"Content-Type": "application/json"}, msgspec.json.encode(body))


def find(tx: Tx, caller: Caller, text: str, count: int, namespace: str = "") -> list[tuple[Any, ...]]:
    """(name, description, stars, public, pulls, updated): the exact name first, then what begins with the text, then
    what has a word that does, then what holds it anywhere (from three letters on). Each step ends at `count`.
    """
    condition, args = visible_sql(caller)
    if namespace:
        condition, args = f"{condition} AND r.namespace = ?", [*args, namespace]
    plain = "".join(c for c in text.lower() if c.isprintable()).strip().removeprefix("library/")
    found: dict[str, tuple[Any, ...]] = {}
    for source, where, places in _steps(tx.dialect, plain):
        rows = tx.all(
            f"SELECT r.name, r.description, r.stars, r.public, r.pulls, r.updated FROM {source} WHERE {where}"
            f" AND {condition} LIMIT ?",
            (*places, *args, count + len(found)),
        )
        for row in sorted(rows, key=lambda row: (-row[2], row[0])):
            found.setdefault(row[0], row)
        if len(found) >= count:
            break
    return list(found.values())[:count]


def _steps(dialect: str, plain: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """(FROM, WHERE, places): queries in the order in which people want their answers; each has its index."""
    table = "repositories r"
    steps: list[tuple[str, str, tuple[str, ...]]]
    if not plain:
        return [(table, "1 = 1", ())]
    exact: tuple[str, str, tuple[str, ...]] = (table, "r.name = ?", (plain,))
    if dialect == "postgresql":
        pattern = plain.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        held = "(r.name LIKE ? OR r.description ILIKE ?)"
        return [exact, (table, "r.name LIKE ?", (f"{pattern}%",)), (table, held, (f"%{pattern}%",) * 2)]
    steps = [exact]
    if plain.isascii():  # as names are
        steps.append((table, "r.name >= ? AND r.name < ?", (plain, plain[:-1] + chr(ord(plain[-1]) + 1))))
    words = re.findall(r"[^\W_]+", plain)
    if words:
        match = " ".join(f'"{word}"' for word in words) + "*"
        steps.append(("repository_words f JOIN repositories r ON r.id = f.rowid", "repository_words MATCH ?", (match,)))
    if len(plain) >= _TRIGRAM:
        quoted = '"' + plain.replace('"', '""') + '"'
        steps.append(("repository_parts f JOIN repositories r ON r.id = f.rowid", "repository_parts MATCH ?", (quoted,)))
    return steps
