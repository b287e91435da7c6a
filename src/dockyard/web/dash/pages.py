"""The routes.

    /            every service        /s/NAME   one service: instances, findings, logs with search      /login
    /events      the stream           /metrics  for Prometheus, without the secret                       /act   forms
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from dockyard.compose import exposition
from dockyard.compose.desk import Desk
from dockyard.compose.picture import Picture, milliseconds
from dockyard.errors import DockyardError, InvalidParameter
from dockyard.http import Request, Response, StreamResponse
from dockyard.registry.access import ANONYMOUS
from dockyard.registry.api import wire_error
from dockyard.registry.errors import THING_UNKNOWN, UNSUPPORTED
from dockyard.web import session
from dockyard.web.dash.feed import Feed
from dockyard.web.forms import one, read_fields
from dockyard.web.render import HEADERS, render, static
from dockyard.web.session import Visitor

LINES = 300
_STATES = {"up": "good", "done": "", "off": "", "starting": "warn", "degraded": "warn", "down": "bad"}
_CIRCUITS = {"closed": "good", "half-open": "warn", "open": "bad"}


@dataclass(frozen=True, slots=True)
class Visit:
    request: Request
    visitor: Visitor

    @property
    def path(self) -> str:
        return self.request.path

    @property
    def part(self) -> str:
        """What htmx asks for; "" for a whole page."""
        return self.request.query_get("part") if self.request.headers.get("hx-request") == "true" else ""


class Pages:
    """``token`` is the secret; ``port`` tells cookies of several dashes on one host apart (they know no ports)."""

    def __init__(self, desk: Desk, token: str) -> None:
        self.desk, self.secret, self.port = desk, token, 0
        self.feed = Feed(desk)

    async def handle(self, request: Request) -> Response | StreamResponse:
        path = request.path
        if path == "/metrics":
            return Response(200, {"Content-Type": exposition.MEDIA_TYPE, "Cache-Control": "no-store"},
                            exposition.render(self.desk.picture))  # fmt: skip
        visit = Visit(request, self._visitor(request))
        try:
            return static(request) if path.startswith("/static/") else await self._visit(visit, path)
        except DockyardError as error:
            return self._error(visit, error)

    async def _visit(self, visit: Visit, path: str) -> Response | StreamResponse:
        request = visit.request
        if given := request.query_get("token"):
            return self._enter(visit, given)
        if not self._known(request):
            return self._login(visit) if path != "/events" else Response(403, {}, b"")
        if path == "/events":
            headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            return StreamResponse(200, headers, self.feed.stream())
        return await self._answer(visit, path)

    async def _answer(self, visit: Visit, path: str) -> Response:
        if visit.request.method == "POST":
            return await self._act(visit, path)
        if visit.request.method not in {"GET", "HEAD"}:
            raise UNSUPPORTED(reason=f"{visit.request.method} {path[:100]}")
        if path == "/":
            template = "dash/services.html" if visit.part == "services" else "dash/overview.html"
            return self.html(visit, template, **_words(self.desk.picture))
        if path == "/theme":
            return self._theme(visit)
        if path.startswith("/s/"):
            return await self._service(visit, path.removeprefix("/s/"))
        raise THING_UNKNOWN(what="page", name=path[:200])

    async def _service(self, visit: Visit, name: str) -> Response:
        picture = self.desk.picture
        service = picture.service(name)
        if service is None:
            raise THING_UNKNOWN(what="service", name=name[:100])
        search = visit.request.query_get("q")[:200]
        lines: list[Any] = []
        if visit.part != "service":
            lines = await asyncio.to_thread(self.desk.log, name, search, LINES)
        template = {"service": "dash/instances.html", "log": "dash/log.html"}.get(visit.part, "dash/service.html")
        return self.html(visit, template, one=service, lines=_marked(lines, search), text=search, **_words(picture))

    def html(self, visit: Visit, template: str, status: int = 200, more: list[tuple[str, str]] | None = None,
             **values: Any) -> Response:  # fmt: skip
        headers = [*HEADERS, ("Vary", "Cookie, HX-Request"), *(more or [])]
        if visit.visitor.flash and not visit.part:
            headers.append(session.flash_cookie("", visit.visitor.secure))
        body = render(template, visit=visit, visitor=visit.visitor, project=self.desk.project.name, **values)
        return Response(status, headers, body)

    # ---- who

    @property
    def _cookie(self) -> str:
        return f"dockyard-dash-{self.port}"

    def _known(self, request: Request) -> bool:
        return hmac.compare_digest(session.cookies(request).get(self._cookie, "").encode(), self._pass.encode())

    @property
    def _pass(self) -> str:
        """What the cookie holds: not the secret itself, so that a look at the browser's storage does not tell it."""
        return hashlib.blake2b(self.secret.encode(), person=b"dockyard-dash", digest_size=24).hexdigest()

    def _visitor(self, request: Request) -> Visitor:
        jar = session.cookies(request)
        theme = jar.get("dockyard-theme", "")
        flash = unquote(jar.get("dockyard-flash", ""))[:500]
        return Visitor(ANONYMOUS, self._pass, False, flash, theme if theme in {"light", "dark"} else "",
                       session.is_secure(request))  # fmt: skip

    def _enter(self, visit: Visit, given: str) -> Response:
        if not hmac.compare_digest(given.encode(), self.secret.encode()):
            return self._login(visit, failed=True)
        cookie = f"{self._cookie}={self._pass}; Path=/; SameSite=Lax; HttpOnly"
        return Response(303, [("Location", session.safe_next(visit.path)), ("Cache-Control", "no-store"), ("Set-Cookie", cookie)])

    def _login(self, visit: Visit, *, failed: bool = False) -> Response:
        return self.html(visit, "dash/login.html", 403, failed=failed)

    def _theme(self, visit: Visit) -> Response:
        wanted = visit.request.query_get("to")
        cookie = session.theme_cookie(wanted if wanted in {"light", "dark"} else "", visit.visitor.secure)
        back = session.safe_next(visit.request.query_get("back", "/"))
        return Response(303, [("Location", back), ("Cache-Control", "no-store"), cookie])

    # ---- forms

    async def _act(self, visit: Visit, path: str) -> Response:
        fields = await read_fields(visit.request)
        session.check_form(visit.request, visit.visitor, one(fields, "_csrf"))
        verb, name = one(fields, "verb"), one(fields, "service")
        if path != "/act" or verb not in {"restart", "update", "check", "cure"}:
            raise THING_UNKNOWN(what="page", name=path[:200])
        if name and self.desk.picture.service(name) is None:
            raise THING_UNKNOWN(what="service", name=name[:100])
        if verb == "restart" and not name:
            raise THING_UNKNOWN(what="service", name="")
        if verb == "check":
            begun = self.desk.check_images()
        elif verb == "cure":
            begun = self.desk.cure(one(fields, "finding")[:200])
        else:
            begun = self.desk.restart([name]) if verb == "restart" else self.desk.update([name] if name else [])
        sentence = "It has begun." if begun else "Something else is being done; wait for its end."
        if visit.request.headers.get("hx-request") == "true":
            return self.html(visit, "dash/told.html", sentence=sentence, good=begun)
        back = session.safe_next(one(fields, "_back"))
        return Response(303, [("Location", back), ("Cache-Control", "no-store"), session.flash_cookie(sentence, False)])

    def _error(self, visit: Visit, error: DockyardError) -> Response:
        status = 400 if isinstance(error, InvalidParameter) else wire_error(error).status
        if visit.request.headers.get("hx-request") == "true":
            more = [("HX-Retarget", "#said"), ("HX-Reswap", "innerHTML")]
            return self.html(visit, "failed.html", 200, more, sentence=error.message, hint=error.hint)
        return self.html(visit, "dash/error.html", status, number=status, sentence=error.message, hint=error.hint)


def _words(picture: Picture) -> dict[str, Any]:
    """What every template of the picture needs."""
    return {"picture": picture, "states": _STATES, "circuits": _CIRCUITS, "ms": milliseconds, "spark": spark}


def _marked(lines: list[Any], search: str) -> list[dict[str, Any]]:
    """Each line in three pieces: before the match, the match, behind it."""
    rows = []
    for line in lines:
        at = line.text.lower().find(search.lower()) if search else -1
        cut = (line.text[:at], line.text[at : at + len(search)], line.text[at + len(search) :]) if at >= 0 else (line.text, "", "")
        rows.append({"number": line.container.rpartition("-")[2], "time": line.time[11:19], "at": line.time,
                     "bad": line.stream == 2, "cut": cut})  # fmt: skip
    return rows


def spark(values: tuple[float, ...], width: int = 120, height: int = 28) -> str:
    """The points of a polyline of the last values, oldest left."""
    if len(values) < 2:
        return ""
    most = max(*values, 1e-9)
    step = width / (len(values) - 1)
    return " ".join(
        f"{index * step:.1f},{height - 2 - (height - 4) * value / most:.1f}" for index, value in enumerate(values)
    )
