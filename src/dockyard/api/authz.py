"""Authorization plugins: programs that allow or deny each request, and each answer (moby pkg/authorization).

A plugin sees the request as the daemon has parsed it: the decoded path, and the whole body whatever its length or
declared type, read before anybody acts on it (CVE-2024-41110 and CVE-2026-34040: plugins that saw less than the daemon).
Only archives are not shown, as in moby: contexts, layers and files that are copied. A plugin that cannot be found or
asked denies. Plugins are asked in the order given; the first refusal ends it.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from urllib.parse import quote

from dockyard.api.call import MAX_JSON_BODY, Call
from dockyard.client import plugins
from dockyard.errors import Code, DockyardError, Forbidden, System
from dockyard.http import Answer, FileResponse, Response, StreamResponse

Json = dict[str, Any]

DENIED = Code("DY-API-050", Forbidden, "authorization denied by plugin {plugin}: {reason}")
NOT_ASKED = Code(
    "DY-API-051", System, "plugin {plugin} failed with error: {cause}",
    hint="start the plugin, or take it out of authorization-plugins",
)  # fmt: skip
NOT_AUTHZ = Code("DY-API-052", System, "plugin {plugin} failed with error: it does not implement authz but {kinds}")

ARCHIVES = frozenset({"images.load", "images.build", "images.create", "containers.archive_put", "streams.session", "streams.grpc"})
"""Handlers whose body is a stream of files or a protocol of its own."""
ASKED_AT_ONCE = 8
"""Threads that wait for plugins."""
MAX_SHOWN_ANSWER = 1 << 20
"""Bytes of an answer's body that a plugin is shown; a longer one is denied rather than shown in part."""


class Asked(Protocol):
    def call(self, method: str, request: Mapping[str, Any] | None = None) -> Json: ...
    def implements(self) -> Sequence[str]: ...


class Authorizer:
    """``find``: a plugin by its name; raises DockyardError."""

    def __init__(self, names: Sequence[str], find: Callable[[str], Asked] = plugins.find) -> None:
        self.names = tuple(dict.fromkeys(names))
        self._find = find
        self._known: dict[str, Asked] = {}
        self._threads = ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="authz")

    async def request(self, call: Call) -> Call:
        """The call with its body read. Raises Forbidden, or System when a plugin cannot be asked."""
        if call.route.handler not in ARCHIVES:
            call = dataclasses.replace(call, kept=await call.request.body(MAX_JSON_BODY))
        await self._ask("AuthZPlugin.AuthZReq", _request_document(call))
        return call

    async def answered(self, call: Call, answer: Answer) -> Answer:
        """The answer, if every plugin lets it go. A connection that was taken over has been answered already."""
        if answer is None:
            return None
        document = _request_document(call) | {"ResponseStatusCode": answer.status, "ResponseHeaders": _headers(answer.block)}
        try:
            if isinstance(answer, Response) and b"application/json" in answer.block.lower():
                if len(answer.body) > MAX_SHOWN_ANSWER:
                    raise DENIED(plugin=self.names[0], reason=f"the answer is longer than {MAX_SHOWN_ANSWER} bytes")
                document["ResponseBody"] = base64.b64encode(answer.body).decode()
            await self._ask("AuthZPlugin.AuthZRes", document)
        except BaseException:
            await _drop(answer)
            raise
        return answer

    async def _ask(self, method: str, document: Json) -> None:
        loop = asyncio.get_running_loop()
        for name in self.names:
            answer = await loop.run_in_executor(self._threads, self._asked, name, method, document)
            if answer.get("Allow") is not True:
                raise DENIED(plugin=name, reason=answer.get("Msg") or "no reason given")

    def _asked(self, name: str, method: str, document: Json) -> Json:
        try:
            if (plugin := self._known.get(name)) is None:
                plugin = self._find(name)
                if "authz" not in (kinds := plugin.implements()):
                    raise NOT_AUTHZ(plugin=name, kinds=", ".join(kinds) or "nothing")
                self._known[name] = plugin
            return plugin.call(method, document)
        except plugins.Unimplemented as error:
            raise NOT_ASKED(plugin=name, cause=f"it does not know {error}") from None
        except DockyardError as error:
            if error.code in {NOT_AUTHZ.id, DENIED.id}:
                raise
            self._known.pop(name, None)  # it may come back at another address
            raise NOT_ASKED(plugin=name, cause=error.message) from None


def _request_document(call: Call) -> Json:
    request = call.request
    _, question, query = request.target.partition("?")
    document: Json = {
        "RequestMethod": request.method, "RequestUri": quote(request.path, safe="/:@!$&'()*+,;=-._~") + question + query,
        "RequestHeaders": dict(request.headers),
    }  # fmt: skip
    if call.kept:
        document["RequestBody"] = base64.b64encode(call.kept).decode()
    if name := _common_name(request.peer.certificate):
        document |= {"User": name, "UserAuthNMethod": "TLS"}
    return document


def _common_name(certificate: Mapping[str, Any] | None) -> str:
    """Of a verified client certificate in the form of ``ssl.getpeercert``."""
    for group in (certificate or {}).get("subject", ()):
        for key, value in group:
            if key == "commonName":
                return str(value)
    return ""


def _headers(block: bytes) -> dict[str, str]:
    lines = block.decode("latin-1").split("\r\n")
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


async def _drop(answer: Response | StreamResponse | FileResponse) -> None:
    """An answer that nobody gets gives back what it holds."""
    if isinstance(answer, StreamResponse):
        close: Callable[[], Awaitable[None]] | None = getattr(answer.chunks, "aclose", None)
        if close is not None:
            await close()
    elif isinstance(answer, FileResponse):
        answer.close()
