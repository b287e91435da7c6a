"""/v1/_ping and /v1/search: what `docker search` and `podman search` ask a registry, and the search of the pages."""

from __future__ import annotations

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
    """(name, description, stars, public, pulls, updated): the exact name first, then what begins with it, then more."""
    condition, args = visible_sql(caller)
    if namespace:
        condition, args = f"{condition} AND r.namespace = ?", [*args, namespace]
    plain = text.lower().strip().removeprefix("library/")
    pattern = plain.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return tx.all(
        "SELECT r.name, r.description, r.stars, r.public, r.pulls, r.updated FROM repositories r"
        f" WHERE {condition} AND (r.name LIKE ? ESCAPE '\\' OR r.description LIKE ? ESCAPE '\\')"
        " ORDER BY CASE WHEN r.name = ? THEN 0 WHEN r.name LIKE ? ESCAPE '\\' THEN 1 ELSE 2 END,"
        " r.stars DESC, r.name LIMIT ?",
        (*args, f"%{pattern}%", f"%{pattern}%", plain, f"{pattern}%", count),
    )
