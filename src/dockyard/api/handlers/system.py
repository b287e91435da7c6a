"""system: ping, version, info, df, events, auth; and the honest answers of groups that are not served."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dockyard.api import answers
from dockyard.api.call import Call, Json
from dockyard.errors import Code, NotFound, Unavailable
from dockyard.http import Answer, Response

NO_SUCH_PLUGIN = Code("DY-API-011", NotFound, 'plugin "{name}" not found')
NO_SWARM = Code(
    "DY-API-010", Unavailable,
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again.",
)  # fmt: skip

_PING_HEADERS = {
    "Content-Type": "text/plain; charset=utf-8",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}


def ping_responses(builder_version: str, *, experimental: bool = False) -> tuple[Response, Response]:
    """(GET, HEAD), made once: answering costs no encoding."""
    headers = _PING_HEADERS | {"Builder-Version": builder_version, "Docker-Experimental": str(experimental).lower()}
    return Response(200, headers, b"OK"), Response(200, headers | {"Content-Length": "0"})


async def ping(call: Call) -> Answer:
    get, head = ping_responses("1")
    return head if call.request.method == "HEAD" else get


async def version(call: Call) -> Answer:
    return answers.json(await call.engine.system.version())


async def info(call: Call) -> Answer:
    return answers.json(await call.engine.system.info())


async def disk_usage(call: Call) -> Answer:
    return answers.json(await call.engine.system.disk_usage(call.all("type")))


async def auth(call: Call) -> Answer:
    return answers.json(await call.engine.system.auth(await call.document()))


async def events(call: Call) -> Answer:
    since = call.moment("since") or int(call.text("since") != "")  # 0 is the epoch here, not "not given"
    stream = await call.engine.system.events(since, call.moment("until"), call.filters())
    return answers.json_lines(_with_legacy(stream))


async def _with_legacy(stream: AsyncIterator[Json]) -> AsyncIterator[Json]:
    """Before API 1.52 events carry ``status``, ``id`` and ``from`` at the top as well."""
    async for event in stream:
        if event["Type"] in {"container", "image"}:
            actor = event["Actor"]
            event = event | {"status": event["Action"], "id": actor["ID"]}
            if source := actor["Attributes"].get("image"):
                event["from"] = source
        yield event


async def no_plugins(call: Call) -> Answer:
    """There are none, which is the truth; installing one is not implemented."""
    return answers.json([])


async def no_plugin(call: Call) -> Answer:
    """Any name is unknown, not "not implemented": ``docker inspect NAME`` asks here last and must hear that."""
    raise NO_SUCH_PLUGIN(name=call.params["name"])


async def no_swarm(call: Call) -> Answer:
    raise NO_SWARM()
