"""``dockyard.runtime`` behind the engine's Runtime port: looks up what the pure planner must be given, then does."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dockyard.engine.adapters.streams import ExecStream, PendingStream
from dockyard.engine.model import Record
from dockyard.engine.plan.create import merge_env, words
from dockyard.engine.ports import Ended, Mounted, Process, StartRequest, Stream
from dockyard.engine.usernamespace import SHARED_WITH_HOST, UserNamespace
from dockyard.kernel import mount as kmount
from dockyard.kernel import safefs
from dockyard.lib import clock
from dockyard.model.container import HostConfig, Resources, Ulimit
from dockyard.model.exchange import Frame, LogQuery
from dockyard.runtime import (
    Alive,
    Exit,
    HostFacts,
    Runtime,
    devices,
    security,
    stats,
    users,
)
from dockyard.runtime.execs import ExecRequest, ExecSession
from dockyard.runtime.logs import LogWish
from dockyard.runtime.model import LogLimits
from dockyard.runtime.plan import make_spec, make_update, plan_process
from dockyard.runtime.plan_resources import plan_resources, plan_rlimits
from dockyard.runtime.request import HOST, PRIVATE, Namespaces, ResolvedMount, SpecRequest

Json = dict[str, Any]
HOST_NETWORK = "host"
FILES = (("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"))
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class RunningExec:
    session: ExecSession
    stream: Stream

    @property
    def pid(self) -> int:
        return self.session.pid

    async def wait(self) -> int:
        return await self.session.wait()

    async def resize(self, height: int, width: int) -> None:
        self.session.resize(height, width)

    async def kill(self) -> None:
        self.session.kill(9)


class RuntimeAdapter:
    def __init__(
        self, runtime: Runtime, *, ulimits: Mapping[str, Ulimit], cgroup_parent: str, init: bool,
        log_options: Mapping[str, str], security_opt: Sequence[str] = (), namespace: UserNamespace = SHARED_WITH_HOST,
    ) -> None:  # fmt: skip
        self._runtime = runtime
        self._ulimits = {name: (limit.soft, limit.hard) for name, limit in ulimits.items()}
        self._cgroup_parent = cgroup_parent
        self._init = init
        self._log_options = log_options
        self._security_opt = security_opt
        self._namespace = namespace
        self._waiting: dict[str, set[PendingStream]] = {}

    @property
    def facts(self) -> HostFacts:
        return self._runtime.facts

    # -- life -----------------------------------------------------------------------------------------------------

    def check(self, host: HostConfig) -> list[str]:
        _, limited = plan_resources(host, self.facts, devices.block_numbers(host))
        _, clamped = plan_rlimits(host.ulimits or (), {}, self.facts)
        missing: list[str] = []
        if host.privileged or host.cap_add:
            asked = (host.cap_add, host.cap_drop, self.facts.capabilities)
            missing = security.plan_capabilities(*asked, privileged=host.privileged)[1]
        return [*limited, *clamped, *missing]

    async def create(self, request: StartRequest) -> tuple[Process, list[str]]:
        record = request.record
        try:
            plan = make_spec(self._spec_request(request), self.facts)
            bundle = _fresh_bundle(request.directory)
            config = record.config
            made = await self._runtime.create(
                record.id, bundle, plan.spec, tty=config.tty, open_stdin=config.open_stdin,
                stdin_once=config.stdin_once, log_path=_log_path(record, request.directory),
                log_limits=log_limits({**self._log_options, **(record.host.log_config.config or {})}), exit_command=request.exit_command,
                runtime=record.host.runtime,
            )  # fmt: skip
        except BaseException:
            self._begin(record, attached=False)
            raise
        self._begin(record, attached=True)
        return Process(made.pid, made.conmon_pid, made.conmon_start_time), plan.warnings

    def _begin(self, record: Record, *, attached: bool) -> None:
        for pending in self._waiting.pop(record.id, set()):
            pending.begin(
                self._runtime.attach(record.id, stdin=pending.stdin, stdout=pending.stdout, stderr=pending.stderr)
                if attached
                else None
            )

    def _spec_request(self, request: StartRequest) -> SpecRequest:
        record, host = request.record, request.record.host
        config = record.config
        if self._security_opt:
            host = host.replace(security_opt=self._security(host))
        namespace = self._namespace.of(host)
        with safefs.root_fd(request.rootfs) as root:
            user = users.resolve(root, config.user, host.group_add or ())
        return SpecRequest(
            id=record.id,
            rootfs=request.rootfs,
            config=config,
            host=host,
            argv=(record.path, *record.args),
            env=tuple(merge_env(request.environment, config.env or ())),
            cwd=config.working_dir or "/",
            user=user,
            hostname=request.hostname,
            mounts=(*_network_files(request), *(resolved_mount(item) for item in request.mounts)),
            devices=devices.resolve_devices(host.devices or ()),
            host_devices=devices.host_devices() if host.privileged else (),
            block_numbers=devices.block_numbers(host),
            namespaces=_namespaces(request, namespace),
            ids=namespace.ids,
            shm_source=_shared_memory(request, namespace),
            shm_size=host.shm_size,
            cgroup_parent=self._cgroup_parent,
            init=self._init if host.init is None else host.init,
            default_ulimits=self._ulimits,
        )

    def _security(self, host: HostConfig) -> list[str]:
        own = list(host.security_opt or ())
        return own if host.privileged else [*self._security_opt, *own]

    async def start(self, container_id: str) -> None:
        await self._runtime.start(container_id)

    async def explain(self, record: Record, directory: str) -> str:
        try:
            spec = await asyncio.to_thread(Path(f"{directory}/bundle/config.json").read_bytes)
            return str(await self._runtime.explain(msgspec.json.decode(spec)) or "")
        except (OSError, msgspec.DecodeError):
            return ""

    async def delete(self, container_id: str) -> None:
        await self._runtime.delete(container_id, force=True)

    async def kill(self, container_id: str, signal: int) -> None:
        await self._runtime.kill(container_id, signal)

    async def pause(self, container_id: str) -> None:
        await self._runtime.pause(container_id)

    async def resume(self, container_id: str) -> None:
        await self._runtime.resume(container_id)

    async def update(self, container_id: str, limits: Resources) -> None:
        resources, _ = make_update(limits, self.facts, devices.block_numbers(limits))
        await self._runtime.update(container_id, resources)

    async def resize(self, container_id: str, height: int, width: int) -> None:
        await self._runtime.resize(container_id, height, width)

    async def wait(self, container_id: str) -> Ended:
        return _ended(await self._runtime.wait_exit(container_id))

    async def recover(self, record: Record, directory: str) -> Process | Ended | None:
        found = await self._runtime.recover(record.id, f"{directory}/bundle")
        if isinstance(found, Alive):
            if not found.started:
                # Recorded as running, but the engine died before it let the process go.
                await self._runtime.start(record.id)
            return Process(found.pid, record.conmon_pid, record.conmon_start)
        return _ended(found) if isinstance(found, Exit) else None

    # -- streams --------------------------------------------------------------------------------------------------

    def attach(self, record: Record, *, stdin: bool, stdout: bool, stderr: bool) -> Stream:
        pending = PendingStream(tty=record.config.tty, stdin=stdin, stdout=stdout, stderr=stderr)
        if record.live:
            pending.begin(self._runtime.attach(record.id, stdin=stdin, stdout=stdout, stderr=stderr))
        else:
            self._waiting.setdefault(record.id, set()).add(pending)
        return pending

    async def logs(self, record: Record, directory: str, query: LogQuery) -> AsyncIterator[Frame]:
        wish = LogWish(
            stdout=query.stdout, stderr=query.stderr, since=query.since, until=query.until, tail=query.tail,
            follow=query.follow and record.live,
        )  # fmt: skip
        attributes = _attributes(record) if query.details else b""
        async for line in self._runtime.logs(record.id, _log_path(record, directory), wish):
            stamp = f"{clock.rfc3339_fixed(line.ts)} ".encode() if query.timestamps else b""
            yield Frame(line.stream, stamp + attributes + line.data)

    # -- looking --------------------------------------------------------------------------------------------------

    async def top(self, record: Record, ps_args: str) -> Json:
        found = await self._runtime.top(record.id, ps_args)
        return {"Titles": found.titles, "Processes": found.processes}

    async def stats(self, record: Record) -> Json:
        return stats.shape(record.id, f"/{record.name}", self._runtime.sample(record.id))

    # -- exec -----------------------------------------------------------------------------------------------------

    async def exec_start(
        self, record: Record, exec_id: str, process: Json, *, tty: bool, stdin: bool, size: tuple[int, int] | None
    ) -> RunningExec:
        spec = await asyncio.to_thread(self._exec_process, record, process, tty, size)
        request = ExecRequest(
            container=record.id, id=exec_id, process=spec, stdin=stdin,
            stdout=process.get("AttachStdout", True) is not False,
            stderr=process.get("AttachStderr", True) is not False,
        )  # fmt: skip
        session = await self._runtime.exec_start(request, size=size)
        return RunningExec(session, ExecStream(session))

    def _exec_process(self, record: Record, process: Json, tty: bool, size: tuple[int, int] | None) -> Json:
        host, config = record.host, record.config
        privileged = bool(process.get("Privileged"))
        capabilities, _ = security.plan_capabilities(
            host.cap_add, host.cap_drop, self.facts.capabilities, privileged=host.privileged or privileged
        )
        options = security.parse_security_options(self._security(host))
        with safefs.root_fd(f"/proc/{record.state.pid}/root") as root:
            user = users.resolve(root, process.get("User") or config.user, host.group_add or ())
        spec = plan_process(
            words(process["Cmd"]) or [], env=merge_env(config.env or (), process.get("Env") or ()),
            cwd=process.get("WorkingDir") or config.working_dir or "/", user=user, tty=tty, size=size,
            hostname=config.hostname, capabilities=capabilities, no_new_privileges=options.no_new_privileges,
        )  # fmt: skip
        limits, _ = plan_rlimits(host.ulimits or (), self._ulimits, self.facts)  # as the container's own process has them
        return spec | ({"rlimits": limits} if limits else {})


def _ended(found: Exit) -> Ended:
    return Ended(found.code, found.at, found.oom_killed)


def _fresh_bundle(directory: str) -> str:
    """Each start has a bundle of its own: an old exit file must not speak for the new process."""
    bundle = f"{directory}/bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    os.mkdir(bundle, 0o700)
    return bundle


def _log_path(record: Record, directory: str) -> str:
    return "" if record.host.log_config.type == "none" else f"{directory}/container.log"


def log_limits(options: Mapping[str, str]) -> LogLimits:
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([kmgt]?)b?", options.get("max-size", "-1").lower())
    size = int(float(match[1]) * _SIZES[match[2]]) if match else -1
    return LogLimits(max_size=size, max_file=int(options.get("max-file", "1")))


def _attributes(record: Record) -> bytes:
    """``docker logs --details``: what the options ``labels`` and ``env`` name, before each line."""
    options = record.host.log_config.config or {}
    labels = record.config.labels or {}
    environ = dict(item.partition("=")[::2] for item in record.config.env or ())
    found = [(name, source[name]) for key, source in (("labels", labels), ("env", environ))
             for name in options.get(key, "").split(",") if name in source]  # fmt: skip
    return (",".join(f"{name}={value}" for name, value in sorted(found)) + " ").encode()


def _network_files(request: StartRequest) -> Sequence[ResolvedMount]:
    taken = {item.point.target for item in request.mounts}
    return [
        ResolvedMount(f"{request.directory}/{name}", target)
        for name, target in FILES
        if target not in taken and os.path.exists(f"{request.directory}/{name}")
    ]


def resolved_mount(mounted: Mounted) -> ResolvedMount:
    point = mounted.point
    if point.type == "tmpfs":
        return ResolvedMount("", point.target, (*point.options, *(() if point.rw else ("ro",))), kind="tmpfs")
    source = mounted.source
    if point.subpath:
        with safefs.root_fd(source) as root:
            source = source.rstrip("/") + safefs.real_path(root, point.subpath)
    options = [mode for mode in point.mode.split(",") if mode and mode not in {"nocopy", "ro", "rw"}]
    options += ["bind"] if "norecursive" in point.options else []
    options += [point.propagation] if point.propagation and point.propagation not in options else []
    return ResolvedMount(source, point.target, (*options, "rw" if point.rw else "ro"))


def _namespaces(request: StartRequest, namespace: UserNamespace) -> Namespaces:
    host = request.record.host

    def joined(mode: str, kind: str) -> str:
        if mode == "host":
            return HOST
        if mode.startswith("container:"):
            return f"/proc/{request.pid_of[mode.removeprefix('container:')]}/ns/{kind}"
        return PRIVATE

    return Namespaces(
        net=HOST if request.netns == HOST_NETWORK else request.netns or PRIVATE, pid=joined(host.pid_mode, "pid"),
        ipc=joined(host.ipc_mode, "ipc"), uts=HOST if host.uts_mode == "host" else PRIVATE, cgroup=host.cgroupns_mode,
        user=namespace.path,
    )  # fmt: skip


def _shared_memory(request: StartRequest, namespace: UserNamespace) -> str:
    """The directory behind /dev/shm where it is shared with others; "" lets the runtime mount one of its own."""
    mode = request.record.host.ipc_mode
    if mode == "host":
        return "/dev/shm"
    if mode.startswith("container:"):
        return request.joined_memory
    if mode != "shareable":
        return ""
    path = f"{request.directory}/shm"
    os.makedirs(path, exist_ok=True)
    if not os.path.ismount(path):
        uid, gid = namespace.ids.root
        kmount.mount("shm", path, "tmpfs", data=f"mode=1777,size={request.record.host.shm_size},uid={uid},gid={gid}")
    return path
