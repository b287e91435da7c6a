"""Runtime and network behind the builder's ports: a RUN is a short container.

The runtime is called in the foreground: no supervisor is started, it clears up after itself, and what the step writes
comes through two pipes. ``sweep`` ends what a killed daemon left; its runs are known by their directories, which stay
until a run has been given back.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from dockyard.build.errors import BAD_OPTION, FOREIGN_STEP, STEP_FAILED
from dockyard.build.plan import host_platform
from dockyard.build.ports import BindMount, Output, Place, Process
from dockyard.engine.usernamespace import SHARED_WITH_HOST, UserNamespace
from dockyard.kernel import binfmt, cgroup, process, safefs
from dockyard.model import ContainerConfig, EndpointSettings, HostConfig, Ulimit
from dockyard.network import Controller, SandboxSpec
from dockyard.runtime import HostFacts, devices, make_spec, messages, users
from dockyard.runtime.conmon import last_error, runtime_globals
from dockyard.runtime.crun import Dialect
from dockyard.runtime.request import HOST, Namespaces, ResolvedMount, SpecRequest

__all__ = ["BuildExecutor", "BuildNetworks"]

HOSTNAME = "buildkitsandbox"
"""The same in every run: a name that changed would change what a step leaves."""
READ_SIZE = 64 << 10
DELETE_LIMIT = 20.0
FOREIGN, TAIL = "exec format error", 512
END_OF_OUTPUT = 5.0
"""Seconds that a pipe may stay open after the runtime has ended."""


class BuildExecutor:
    def __init__(
        self, facts: HostFacts, state: Path, runs: Path, cgroup_parent: str, namespace: UserNamespace = SHARED_WITH_HOST
    ) -> None:
        self._facts, self._state, self._runs, self._cgroup_parent = facts, state, runs, cgroup_parent
        self._namespace = namespace
        self._crun = Dialect()

    async def run(self, process_: Process, output: Output) -> int:
        bundle = self._runs / process_.id
        bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
        (bundle / "config.json").write_bytes(msgspec.json.encode(self._spec(process_)))
        log = f"{bundle}/runtime.log"
        runtime = self._facts.runtime
        words = [*runtime.command, *runtime_globals(str(self._state), log, runtime.path), "run", "--bundle", str(bundle)]
        said = _Tail(output)
        code = await self._supervise([*words, "--no-new-keyring", process_.id], process_.id, said)
        cause = last_error(log) if code else ""
        if code and FOREIGN in (said.text + cause).lower():
            wanted, here = process_.limits.platform, host_platform(platform.machine())
            if wanted and wanted not in (here, *binfmt.emulated()):
                raise FOREIGN_STEP(step=" ".join(process_.args), platform=wanted, host=here)
        if cause:
            raise STEP_FAILED(step=" ".join(process_.args), cause=messages.translate(cause))
        return code

    def _spec(self, wish: Process) -> dict[str, Any]:
        limits = wish.limits
        if wish.insecure and self._namespace.ids:
            raise BAD_OPTION(text="RUN --security=insecure is incompatible with user namespaces (userns-remap)")
        host = HostConfig(
            privileged=wish.insecure, shm_size=limits.shm_size, memory=limits.memory, memory_swap=limits.memory_swap,
            cpu_shares=limits.cpu_shares, cpu_quota=limits.cpu_quota, cpu_period=limits.cpu_period,
            cpuset_cpus=limits.cpuset_cpus, cpuset_mems=limits.cpuset_mems, cgroup_parent=limits.cgroup_parent,
            ulimits=[_ulimit(text) for text in limits.ulimits], security_opt=list(limits.security_opt),
        )  # fmt: skip
        with safefs.root_fd(str(wish.root)) as root:
            user = users.resolve(root, wish.user)
        request = SpecRequest(
            id=wish.id, rootfs=str(wish.root), config=ContainerConfig(), host=host, argv=wish.args, env=wish.env,
            cwd=wish.cwd, user=user, hostname=HOSTNAME, mounts=tuple(_resolved(each) for each in wish.mounts),
            host_devices=devices.host_devices() if wish.insecure else (),
            namespaces=Namespaces(net=HOST if wish.network == "host" else wish.network, user=self._namespace.path),
            ids=self._namespace.ids,
            cgroup_parent=self._cgroup_parent,
        )  # fmt: skip
        spec = make_spec(request, self._facts).spec
        return dict(self._crun.spec(spec)) if self._facts.runtime.name == "crun" else spec

    async def _supervise(self, words: Sequence[str], run: str, output: Output) -> int:
        readers: list[_Pipe] = []
        writers: dict[int, int] = {}
        child = None
        try:
            for stream in (1, 2):
                ours, theirs = os.pipe2(os.O_CLOEXEC)
                writers[stream] = theirs
                readers.append(_Pipe(ours, stream, output))
            try:
                child = process.spawn(words, env={"PATH": process.PATH}, fds=writers)
            finally:
                for fd in writers.values():
                    os.close(fd)
            code = await child.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(END_OF_OUTPUT):
                    for reader in readers:
                        await reader.ended
            return code
        except asyncio.CancelledError:
            assert child is not None
            await asyncio.shield(self._kill(child, run))
            raise
        finally:
            for reader in readers:
                reader.close()
            if child is not None:
                child.close()

    async def _kill(self, child: process.Child, run: str) -> None:
        """The runtime first, that it may start nothing any more; then what it had started."""
        child.kill()
        await child.wait()
        await self.delete(run)

    async def delete(self, run: str) -> None:
        words = [*self._facts.runtime.command, f"--root={self._state}", "delete", "--force", run]
        with suppress(TimeoutError):
            await process.run(words, timeout=DELETE_LIMIT)
        group = f"/{self._cgroup_parent.strip('/')}/{run}"
        await asyncio.to_thread(cgroup.kill, self._facts.cgroup, group)
        with suppress(OSError):
            await asyncio.to_thread(cgroup.remove, self._facts.cgroup, group)


class _Tail:
    """Passes output on and remembers the end of it: runtimes tell there why a program could not be executed."""

    def __init__(self, output: Output) -> None:
        self._output, self._end = output, b""

    def __call__(self, fd: int, data: bytes) -> None:
        self._end = data[-TAIL:] if len(data) >= TAIL else (self._end + data)[-TAIL:]
        self._output(fd, data)

    @property
    def text(self) -> str:
        return self._end.decode("utf-8", "replace")


class _Pipe:
    """Reads one stream as it comes; ``ended`` is done at end of file."""

    def __init__(self, fd: int, stream: int, output: Output) -> None:
        self._fd, self._stream, self._output = fd, stream, output
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        if data:
            self._output(self._stream, data)
        else:
            self._loop.remove_reader(self._fd)
            if not self.ended.done():
                self.ended.set_result(None)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


def _ulimit(text: str) -> Ulimit:
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    try:
        return Ulimit(name=name, soft=int(soft), hard=int(hard or soft))
    except ValueError:
        raise BAD_OPTION(text=f"invalid ulimit argument: {text}") from None


def _resolved(mount: BindMount) -> ResolvedMount:
    if mount.source:
        # Nothing is mounted below our sources; and crun 1.8 cannot make a missing file's place for a recursive one.
        return ResolvedMount(mount.source, mount.target, ("ro-non-recursive" if mount.read_only else "rw",))
    options = ["ro" if mount.read_only else "rw", *([f"size={mount.size}"] if mount.size else []), "exec"]
    return ResolvedMount("", mount.target, tuple(options), kind="tmpfs")


class BuildNetworks:
    def __init__(
        self, controller: Controller, runs: Path, find: Callable[[str], Any], namespace: UserNamespace = SHARED_WITH_HOST
    ) -> None:
        self._controller, self._runs, self._find, self._namespace = controller, runs, find, namespace

    async def attach(self, network: str, sandbox: str, extra_hosts: Sequence[str]) -> Place:
        directory = self._runs / sandbox
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode, name = network, f"build-{sandbox[:12]}"
        if network.startswith("container:"):
            return self._join(network.removeprefix("container:"), sandbox)
        if network not in ("host", "none"):
            found = self._controller.network("bridge" if network in ("", "default") else network)
            mode = {"host": "host", "null": "none"}.get(found.driver, found.name)
        if mode not in ("host", "none"):
            await self._controller.connect(sandbox, name, mode, EndpointSettings())
        spec = SandboxSpec(
            container_id=sandbox, name=name, hostname=HOSTNAME, files_dir=str(directory), mode=mode,
            extra_hosts=tuple(extra_hosts), userns=self._namespace.path,
        )  # fmt: skip
        made = await self._controller.setup(spec)
        return Place(sandbox, "host" if mode == "host" else made.netns, _files(directory))

    def _join(self, ref: str, sandbox: str) -> Place:
        """The network of a running container, with its files."""
        record = self._find(ref).record
        if not record.live:
            raise BAD_OPTION(text=f"cannot join network of a non running container: {record.id}")
        own = self._runs.parents[1] / "containers" / record.id
        return Place(sandbox, f"/proc/{record.state.pid}/ns/net", _files(own))

    async def detach(self, sandbox: str) -> None:
        await self._controller.forget(sandbox)
        shutil.rmtree(self._runs / sandbox, ignore_errors=True)


def _files(directory: Path) -> dict[str, bytes]:
    found = {}
    for leaf in ("hosts", "resolv.conf"):
        with suppress(FileNotFoundError):
            found[f"/etc/{leaf}"] = (directory / leaf).read_bytes()
    return found


async def sweep(executor: BuildExecutor, networks: BuildNetworks, runs: Path) -> None:
    """At the start of a daemon: processes, addresses and files of runs that a killed one left."""
    for directory in runs.iterdir() if runs.is_dir() else ():
        await executor.delete(directory.name)
        await networks.detach(directory.name)
        shutil.rmtree(directory, ignore_errors=True)
