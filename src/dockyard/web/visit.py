"""One request of a browser, and what a page function gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dockyard.http import Request
from dockyard.registry.access import Level, level_of, owns
from dockyard.registry.app import Registry
from dockyard.registry.core import Actor
from dockyard.registry.database import Tx
from dockyard.registry.errors import DENIED, UNAUTHORIZED
from dockyard.web.session import Visitor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    template: str
    values: dict[str, Any] = field(default_factory=dict)
    fragment: str = ""
    """Template of the part that htmx asks for; "" when the page has none."""


@dataclass(frozen=True, slots=True)
class Visit:
    registry: Registry
    request: Request
    visitor: Visitor
    host: str
    """How clients name this registry, for the commands that pages show."""

    @property
    def fragment(self) -> bool:
        headers = self.request.headers
        return headers.get("hx-request") == "true" and headers.get("hx-history-restore-request") != "true"

    @property
    def path(self) -> str:
        return self.request.path

    def asked(self, name: str, limit: int = 100) -> str:
        return self.request.query_get(name)[:limit]

    def number(self, name: str) -> int:
        text = self.request.query_get(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0

    async def read(self, query: Callable[[Tx], T]) -> T:
        """Off the loop: pages ask more than pulls do."""
        return await self.registry.core.db.search(query)

    async def level(self, name: str) -> Level:
        if self.registry.gate.open:
            return Level.ADMIN
        return await self.read(lambda tx: level_of(tx, self.visitor.caller, name))

    async def owns(self, namespace: str) -> bool:
        caller = self.visitor.caller
        if caller.account is not None and caller.cap >= Level.ADMIN:
            return caller.admin or await self.read(lambda tx: owns(tx, caller, namespace))
        return False

    def need(self, allowed: bool, what: str) -> None:
        """Raises UNAUTHORIZED (log in first) or DENIED."""
        if not allowed:
            if self.visitor.caller.account is None:
                raise UNAUTHORIZED()
            raise DENIED(reason=what)

    @property
    def actor(self) -> Actor:
        return Actor(self.visitor.caller.name, self.request.peer.address)
