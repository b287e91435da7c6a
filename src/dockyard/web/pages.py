"""The pages put together: routes, headers, errors as pages.

    /                        repositories, search           /n/NS[/-/TAB]      a user or an organisation
    /r/REPO[/-/TAB[/TAG]]    one repository                 /system[/TAB]      for administrators
    /login /logout /theme    the visit                      /act               every form      /events   the stream
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from dockyard.errors import DockyardError, Unauthorized
from dockyard.http import Request, Response, StreamResponse
from dockyard.http.response import Answer
from dockyard.registry.access import ANONYMOUS
from dockyard.registry.api import wire_error
from dockyard.registry.app import Registry
from dockyard.registry.core import Actor
from dockyard.registry.errors import LOGIN_FAILED, THING_UNKNOWN, TOO_MANY, UNAUTHORIZED, UNSUPPORTED
from dockyard.registry.settings import read_setting
from dockyard.web import namespaces, repositories, session, system
from dockyard.web.events import Feed
from dockyard.web.forms import form_of, one, read_fields
from dockyard.web.render import HEADERS, place, render, static
from dockyard.web.visit import Page, Visit


def pages(registry: Registry) -> Callable[[Request], Answer | Awaitable[Answer]]:
    """For `Registry(pages=...)`."""
    return Pages(registry).handle


@dataclass(frozen=True, slots=True)
class _Route:
    prefix: str
    run: Callable[[Visit], Awaitable[Page]]


class Pages:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.feed = Feed(registry)
        self._routes = [
            _Route("/r/", repositories.page), _Route("/n/", namespaces.page), _Route("/system", system.page),
        ]  # fmt: skip

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        path = request.raw_path
        if path.startswith("/static/"):
            return static(request)
        if path == "/events":
            return self._events(request)
        return self._page(request)

    def _events(self, request: Request) -> StreamResponse:
        if request.method != "GET":
            raise UNSUPPORTED(reason=f"{request.method} events")
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamResponse(200, headers, self.feed.stream())

    # ---- one visit

    async def _page(self, request: Request) -> Response:
        open_ = self.registry.gate.open
        visitor = await session.visitor_of(request, self.registry.accounts, everybody=open_)
        domain = await self.registry.core.db.read(lambda tx: read_setting(tx, "domain"))
        host = domain or request.headers.get("x-forwarded-host") or request.headers.get("host", "localhost:5000")
        visit = Visit(self.registry, request, visitor, host)
        try:
            return await self._answer(visit)
        except DockyardError as error:
            return self._error(visit, error)

    async def _answer(self, visit: Visit) -> Response:
        request, path = visit.request, visit.request.path
        if request.method == "POST":
            return await self._post(visit, path)
        if request.method not in {"GET", "HEAD"}:
            raise UNSUPPORTED(reason=f"{request.method} {path[:100]}")
        if path == "/":
            return self.html(visit, await repositories.listing(visit))
        if path == "/login":
            return self.html(visit, Page("login.html", {"next": session.safe_next(request.query_get("next", "/"))}))
        if path == "/theme":
            return self._theme(visit)
        for route in self._routes:
            if path == route.prefix or path.startswith(route.prefix.rstrip("/") + "/"):
                return self.html(visit, await route.run(visit))
        raise THING_UNKNOWN(what="page", name=path[:200])

    def html(self, visit: Visit, page: Page, status: int = 200, more: list[tuple[str, str]] | None = None) -> Response:
        visitor = visit.visitor
        headers = [*HEADERS, ("Vary", "Cookie, HX-Request"), *(more or [])]
        if visitor.fresh:
            headers.append(session.visit_cookie(visitor))
        if visitor.flash and not visit.fragment:
            headers.append(session.flash_cookie("", visitor.secure))
        template = page.fragment if visit.fragment and page.fragment else page.template
        body = render(template, visit=visit, visitor=visitor, caller=visitor.caller, **page.values)
        return Response(status, headers, body)

    def _theme(self, visit: Visit) -> Response:
        wanted = visit.request.query_get("to")
        theme = wanted if wanted in {"light", "dark"} else ""
        back = session.safe_next(visit.request.query_get("back", "/"))
        return _redirect(back, [session.theme_cookie(theme, visit.visitor.secure)])

    # ---- forms

    async def _post(self, visit: Visit, path: str) -> Response:
        fields = await read_fields(visit.request)
        session.check_form(visit.request, visit.visitor, one(fields, "_csrf"))
        if path == "/login":
            return await self._login(visit, fields)
        if path == "/logout":
            cookie = await session.end_session(self.registry.accounts, visit.request)
            return _redirect("/", [cookie, session.flash_cookie("You are logged out.", visit.visitor.secure)])
        if path == "/act":
            return await self._act(visit, fields)
        raise THING_UNKNOWN(what="page", name=path[:200])

    async def _login(self, visit: Visit, fields: dict[str, list[str]]) -> Response:
        name, password = one(fields, "name"), fields.get("password", [""])[-1]
        back = session.safe_next(one(fields, "next"))
        try:
            caller = await self.registry.accounts.login(name, password, visit.request.peer.address)
        except (LOGIN_FAILED.kind, TOO_MANY.kind) as error:
            page = Page("login.html", {"next": back, "name": name[:100], "failed": str(error)})
            return self.html(visit, page, 401)
        return _redirect(back, [await session.begin_session(self.registry.accounts, caller, visit.request)])

    async def _act(self, visit: Visit, fields: dict[str, list[str]]) -> Response:
        """Rights, checks and the audit record are the administration API's."""
        form = form_of(fields)
        caller = visit.visitor.caller
        actor = Actor(caller.name, visit.request.peer.address)
        answer = await self.registry.admin.perform(form.method, form.path, form.body, caller, actor)
        if shown := _told(form.path, answer):
            return self.html(visit, Page("result.html", {"back": form.back, "done": form.done, **shown}, "told.html"))
        done = form.done or "Done."
        return self._go(visit, form.back, done)

    def _go(self, visit: Visit, back: str, done: str) -> Response:
        flash = session.flash_cookie(done, visit.visitor.secure)
        if visit.fragment:
            return Response(204, [("HX-Redirect", back), flash])
        return _redirect(back, [flash])

    # ---- errors

    def _error(self, visit: Visit, error: DockyardError) -> Response:
        status = wire_error(error).status
        self.registry.metrics.errors[status, error.code] += 1
        anonymous = visit.visitor.caller is ANONYMOUS
        if isinstance(error, Unauthorized) and anonymous and error.code == UNAUTHORIZED.id:
            if visit.fragment:
                return Response(204, [("HX-Redirect", f"/login?next={place(_origin_page(visit))}")])
            return _redirect(f"/login?next={place(visit.request.path)}", [])
        values: dict[str, Any] = {"status": status, "sentence": error.message, "hint": error.hint, "code": error.code}
        if visit.fragment:  # into the page's message line, with the form left as it was typed
            retarget = [("HX-Retarget", "#said"), ("HX-Reswap", "innerHTML")]
            return self.html(visit, Page("error.html", values, "failed.html"), 200, retarget)
        return self.html(visit, Page("error.html", values), status)


def _origin_page(visit: Visit) -> str:
    shown = visit.request.headers.get("hx-current-url")
    return session.safe_next("/" + shown.partition("//")[2].partition("/")[2])


def _redirect(to: str, cookies: list[tuple[str, str]]) -> Response:
    return Response(303, [("Location", to), ("Cache-Control", "no-store"), *cookies])


def _told(path: str, answer: Any) -> dict[str, Any]:
    """Answers that somebody has to read: how `told.html` shows them. {} when "done" says it all."""
    if isinstance(answer, dict) and "token" in answer:
        return {"kind": "token", "token": answer["token"]}
    if isinstance(answer, dict) and "dry_run" in answer:
        return {"kind": "tags", "tags": answer["tags"], "dry_run": answer["dry_run"]}
    if path == "ldap/test":
        return {"kind": "steps", "steps": answer}
    if isinstance(answer, dict) and "outcome" in answer:
        return {"kind": "sentence", "sentence": answer["outcome"]}
    if isinstance(answer, dict) and "changes" in answer:
        return {"kind": "sentence", "sentence": f"{answer['changes']} memberships changed."}
    return {}
