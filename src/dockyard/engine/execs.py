"""Execs: further processes in a running container. As in moby they live in memory only and end with the container."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from dockyard.engine import errors
from dockyard.engine.container import Container
from dockyard.engine.containers import Containers
from dockyard.engine.kit import Kit
from dockyard.engine.lifecycle import link_environment
from dockyard.engine.ports import ExecProcess, Stream
from dockyard.errors import DockyardError
from dockyard.model import new_id
from dockyard.model.exchange import Frame

Json = dict[str, Any]
KEPT_FINISHED = 64
"""Finished execs kept per container for inspect; older ones are forgotten."""
NEVER_RAN = 126
"""Exit code of an exec whose process could not be started (moby daemon/exec.go)."""
RESIZE_TIMEOUT = 10.0
"""Seconds that a resize waits for a process that is about to exist (moby#35407)."""


@dataclass(slots=True)
class Exec:
    id: str
    container: Container
    config: Json
    running: bool = False
    exit_code: int | None = None
    process: ExecProcess | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    size: tuple[int, int] | None = None


class _ToItsEnd:
    """The stream of an exec ends after its exit code is known: clients ask for it as soon as they see the end."""

    def __init__(self, stream: Stream, followed: asyncio.Task[None]) -> None:
        self.tty, self._stream, self._followed = stream.tty, stream, followed
        self.write, self.write_eof, self.close = stream.write, stream.write_eof, stream.close

    async def frames(self) -> AsyncIterator[Frame]:
        async for frame in self._stream.frames():
            yield frame
        await asyncio.wait([self._followed])


class Execs:
    def __init__(self, kit: Kit, containers: Containers) -> None:
        self._kit = kit
        self._containers = containers
        self._execs: dict[str, Exec] = {}

    def _find(self, exec_id: str) -> Exec:
        if (found := self._execs.get(exec_id)) is None:
            matches = [item for key, item in self._execs.items() if len(exec_id) >= 4 and key.startswith(exec_id)]
            if len(matches) != 1:
                raise errors.NO_SUCH_EXEC(ref=exec_id)
            found = matches[0]
        if found.container.record.id not in self._kit.containers:
            self._execs.pop(found.id, None)
            raise errors.NO_SUCH_EXEC(ref=exec_id)
        return found

    async def create(self, ref: str, config: Json) -> str:
        container = self._containers.find(ref)
        self._check(container, ref)
        command = config.get("Cmd") or []
        config["Cmd"] = [command] if isinstance(command, str) else list(command)
        if not config["Cmd"]:
            raise errors.BAD_REQUEST(cause="No exec command specified")
        made = Exec(new_id(), container, config, size=_size(config.get("ConsoleSize")))
        self._execs[made.id] = made
        container.exec_ids.append(made.id)
        self._forget_old(container)
        container.forget_views()
        container.emit(f"exec_create: {' '.join(config['Cmd'])}", execID=made.id)
        return made.id

    @staticmethod
    def _check(container: Container, ref: str) -> None:
        match container.record.state.status:
            case "running":
                return
            case "paused":
                raise errors.PAUSED_EXEC(ref=ref)
            case "restarting":
                raise errors.RESTARTING(id=container.record.id)
        raise errors.NOT_RUNNING(id=container.record.id)

    def _forget_old(self, container: Container) -> None:
        finished = [key for key in container.exec_ids if self._execs[key].exit_code is not None]
        for key in finished[:-KEPT_FINISHED]:
            container.exec_ids.remove(key)
            del self._execs[key]

    async def start(self, exec_id: str, *, detach: bool, tty: bool, size: tuple[int, int] | None) -> Stream | None:
        found = self._find(exec_id)
        if found.exit_code is not None:
            raise errors.EXEC_DONE(id=exec_id)
        if found.running:
            raise errors.EXEC_RUNNING(id=exec_id)
        self._check(found.container, exec_id)
        found.running = True
        config, container = found.config, found.container
        with_tty = bool(config.get("Tty"))
        try:
            process = await self._kit.supervisor.operate(
                self._kit.runtime.exec_start(
                    container.record, found.id, _with_links(container, config), tty=with_tty,
                    stdin=bool(config.get("AttachStdin")) and not detach, size=size or found.size,
                ),
                f"exec {exec_id}",
            )  # fmt: skip
        except BaseException:
            found.running, found.exit_code = False, NEVER_RAN
            raise
        found.process = process
        found.started.set()
        container.emit(f"exec_start: {' '.join(config['Cmd'])}", execID=found.id)
        followed = self._kit.supervisor.watch(self._follow(found, process), f"exec {found.id[:12]}")
        if detach:
            await process.stream.close()
            return None
        return _ToItsEnd(process.stream, followed)

    async def _follow(self, found: Exec, process: ExecProcess) -> None:
        found.exit_code = await process.wait()
        found.running = False
        found.container.emit("exec_die", execID=found.id, exitCode=str(found.exit_code))

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        found = self._find(exec_id)
        if not found.running and found.exit_code is None:
            found.size = (height, width)
        try:
            async with asyncio.timeout(RESIZE_TIMEOUT):
                await found.started.wait()
        except TimeoutError:
            raise errors.BAD_REQUEST(cause=f"exec {exec_id} is not started") from None
        assert found.process is not None
        await found.process.resize(height, width)

    async def inspect(self, exec_id: str) -> Json:
        found = self._find(exec_id)
        config = found.config
        return {
            "ID": found.id,
            "Running": found.running,
            "ExitCode": found.exit_code,
            "ProcessConfig": {
                "tty": bool(config.get("Tty")),
                "entrypoint": config["Cmd"][0],
                "arguments": config["Cmd"][1:],
                "privileged": bool(config.get("Privileged")),
                "user": config.get("User") or "",
            },
            "OpenStdin": bool(config.get("AttachStdin")),
            "OpenStderr": bool(config.get("AttachStderr")),
            "OpenStdout": bool(config.get("AttachStdout")),
            "CanRemove": found.exit_code is not None,
            "ContainerID": found.container.record.id,
            "DetachKeys": config.get("DetachKeys") or "",
            "Pid": found.process.pid if found.process and found.running else 0,
        }


def _size(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(item, int) and item > 0 for item in value):
        return value[0], value[1]
    return None


def _with_links(container: Container, config: Json) -> Json:
    """A command in a container knows of its links what its first process knows; the container's own variables win."""
    try:
        told = link_environment(container)
    except DockyardError:
        return config  # A linked container has ended: the command runs all the same.
    own = {item.partition("=")[0] for item in container.record.config.env or ()}
    extra = [item for item in told if item.partition("=")[0] not in own]
    return {**config, "Env": [*extra, *(config.get("Env") or ())]} if extra else config
