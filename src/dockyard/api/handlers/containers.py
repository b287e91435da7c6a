"""containers: all but what takes the connection over (attach: ``streams``)."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import msgspec

from dockyard.api import answers, frames
from dockyard.api.call import BAD_PARAMETER, Call
from dockyard.errors import Code, NotImplementedYet
from dockyard.http import Answer, Response, StreamResponse
from dockyard.model import ContainerConfig, HostConfig, NetworkingConfig, RestartPolicy
from dockyard.model.container import Resources
from dockyard.model.exchange import ExitStatus, LogQuery, PathStat

CHECKPOINT = Code(
    "DY-API-020", NotImplementedYet, "checkpoint is not implemented by Dockyard: it needs CRIU and a kernel with C/R"
)


class ContainerCreate(ContainerConfig, frozen=True):
    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig = NetworkingConfig()
    runtime: str = ""
    """docker-py's low-level client says it here; the CLI in HostConfig."""


class ContainerUpdate(Resources, frozen=True):
    restart_policy: RestartPolicy | None = None


def _id(call: Call) -> str:
    return call.params["id"]


async def list(call: Call) -> Answer:
    limit = call.number("limit")
    body = await call.engine.containers.list(
        all=call.flag("all"), limit=limit, size=call.flag("size"), filters=call.filters()
    )
    return answers.encoded(body)


async def create(call: Call) -> Answer:
    wish = await call.json(ContainerCreate)
    config = ContainerConfig(**{name: getattr(wish, name) for name in ContainerConfig.__struct_fields__})
    host = wish.host_config
    host = host.replace(runtime=host.runtime or wish.runtime)
    made = await call.engine.containers.create(
        call.text("name"), config, host, wish.networking_config, call.text("platform")
    )
    return answers.json({"Id": made.id, "Warnings": made.warnings}, 201)


async def inspect(call: Call) -> Answer:
    return answers.encoded(await call.engine.containers.inspect(_id(call), size=call.flag("size")))


async def top(call: Call) -> Answer:
    return answers.json(await call.engine.containers.top(_id(call), call.text("ps_args")))


async def logs(call: Call) -> Answer:
    tail = call.text("tail")
    query = LogQuery(
        stdout=call.flag("stdout"), stderr=call.flag("stderr"), follow=call.flag("follow"), since=call.moment("since"),
        until=call.moment("until"), timestamps=call.flag("timestamps"), details=call.flag("details"),
        tail=int(tail) if tail.isdigit() else -1,
    )  # fmt: skip
    tty, stream = await call.engine.containers.logs(_id(call), query)
    content_type = frames.content_type(call.version, tty=tty, upgraded=True)
    return StreamResponse(200, {"Content-Type": content_type}, frames.encoded(stream, tty=tty))


async def changes(call: Call) -> Answer:
    return answers.json(await call.engine.containers.changes(_id(call)))


async def export(call: Call) -> Answer:
    chunks = await call.engine.containers.export(_id(call))
    return answers.tar(chunks, {"Content-Type": "application/octet-stream"})


async def stats(call: Call) -> Answer:
    stream = call.flag("stream", default=True)
    if stream and call.flag("one-shot"):
        raise BAD_PARAMETER(cause="cannot have stream=true and one-shot=true")
    samples = await call.engine.containers.stats(_id(call), stream=stream, one_shot=call.flag("one-shot"))
    return answers.json_lines(samples)


async def resize(call: Call) -> Answer:
    await call.engine.containers.resize(_id(call), call.number("h"), call.number("w"))
    return answers.empty(200)


async def start(call: Call) -> Answer:
    # A host config in the body was refused by Docker since API 1.24; a few old clients send "{}" or "null".
    body = await call.request.body(1 << 20)
    if body.strip() not in {b"", b"{}", b"null"}:
        raise BAD_PARAMETER(
            cause="starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    await call.engine.containers.start(_id(call))
    return answers.empty()


async def stop(call: Call) -> Answer:
    await call.engine.containers.stop(_id(call), signal=call.text("signal"), timeout=call.optional_number("t"))
    return answers.empty()


async def restart(call: Call) -> Answer:
    await call.engine.containers.restart(_id(call), signal=call.text("signal"), timeout=call.optional_number("t"))
    return answers.empty()


async def kill(call: Call) -> Answer:
    await call.engine.containers.kill(_id(call), call.text("signal"))
    return answers.empty()


async def update(call: Call) -> Answer:
    wish = await call.json(ContainerUpdate)
    limits = Resources(**{name: getattr(wish, name) for name in Resources.__struct_fields__})
    warnings = await call.engine.containers.update(_id(call), limits, wish.restart_policy)
    return answers.json({"Warnings": warnings or None})


async def rename(call: Call) -> Answer:
    await call.engine.containers.rename(_id(call), call.text("name"))
    return answers.empty()


async def pause(call: Call) -> Answer:
    await call.engine.containers.pause(_id(call))
    return answers.empty()


async def unpause(call: Call) -> Answer:
    await call.engine.containers.unpause(_id(call))
    return answers.empty()


async def wait(call: Call) -> Answer:
    """The head goes out at once, when the wait is registered: ``docker run`` starts the container only after it."""
    condition = call.text("condition") if call.version >= (1, 30) else ""
    waiting = await call.engine.containers.wait(_id(call), condition)
    return StreamResponse(200, answers.JSON, _exit_status(waiting))


async def _exit_status(waiting: Awaitable[ExitStatus]) -> AsyncIterator[bytes]:
    status = await waiting
    body: dict[str, Any] = {"StatusCode": status.code}
    if status.error:
        body["Error"] = {"Message": status.error}
    yield msgspec.json.encode(body) + b"\n"


async def remove(call: Call) -> Answer:
    await call.engine.containers.remove(
        _id(call), volumes=call.flag("v"), link=call.flag("link"), force=call.flag("force")
    )
    return answers.empty()


async def prune(call: Call) -> Answer:
    return answers.json(await call.engine.containers.prune(call.filters()))


async def archive_stat(call: Call) -> Answer:
    found = await call.engine.containers.archive_stat(_id(call), _path(call))
    return Response(200, _stat_header(found) | {"Content-Length": "0"})


async def archive_get(call: Call) -> Answer:
    found, chunks = await call.engine.containers.archive_get(_id(call), _path(call))
    return answers.tar(chunks, _stat_header(found))


async def archive_put(call: Call) -> Answer:
    await call.engine.containers.archive_put(
        _id(call), _path(call), call.stream(), no_overwrite_dir_non_dir=call.flag("noOverwriteDirNonDir"),
        copy_uid_gid=call.flag("copyUIDGID"),
    )  # fmt: skip
    return answers.empty(200)


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise BAD_PARAMETER(cause="bad parameter: path cannot be empty")
    if "\0" in path:
        raise BAD_PARAMETER(cause="bad parameter: path contains a null byte")
    return path


def _stat_header(found: PathStat) -> dict[str, str]:
    document = {
        "name": found.name, "size": found.size, "mode": found.mode, "mtime": found.mtime,
        "linkTarget": found.link_target,
    }  # fmt: skip
    return {"X-Docker-Container-Path-Stat": base64.b64encode(msgspec.json.encode(document)).decode()}


async def checkpoint(call: Call) -> Answer:
    raise CHECKPOINT()
