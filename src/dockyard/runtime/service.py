"""The facade: create, start, signal, watch and delete containers through conmon and an OCI runtime.

What the runtime binary is asked to do is as little as possible, because each call of runc costs 8 ms of a processor:
``create`` runs it; ``start``, ``kill``, ``state``, exit and ``delete`` are done here on the kernel's objects with the
same effect on runc's state directory (see ADR 201), and fall back to the binary for another runtime or on surprise.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from dockyard.errors import DockyardError
from dockyard.kernel import cgroup, process
from dockyard.kernel import pidfd as handles
from dockyard.lib.notjson import NOT_JSON
from dockyard.runtime import conmon, errors, messages
from dockyard.runtime.attach import Attachment, Overflow
from dockyard.runtime.crun import Dialect
from dockyard.runtime.evidence import gather
from dockyard.runtime.execs import ExecRequest, ExecSession, reap_failed, set_size, start_exec
from dockyard.runtime.forensics import Explanation, explain
from dockyard.runtime.inotify import CLOSE_WRITE, MOVED_TO, Inotify
from dockyard.runtime.launch import launch
from dockyard.runtime.logs import LogWish, read_logs
from dockyard.runtime.model import (
    Alive,
    Created,
    Exit,
    HostFacts,
    LogLimits,
    LogLine,
    Lost,
    Recovered,
    State,
    Supervised,
)
from dockyard.runtime.stats import Sample, sample
from dockyard.runtime.task import Task, read_exit
from dockyard.runtime.top import Top, top

DEFAULT_LIMITS = LogLimits()
START_LIMIT = 10.0
RUNTIME_LIMIT = 30.0
KILL_LIMIT = 10.0
CONMON_LIMIT = 2.0
THREADS = 4
KNOWN = frozenset(("runc", "crun"))
"""Runtimes whose gate and state directory we know (ADR 201, 204); of others the binary is called."""
EXIT_DIR = "exits"
RECORD = "supervised.json"
EXECS = "execs"
"""Below the state directory and not in the bundle: a full disk must not keep anybody from looking around."""
SWEEP = 10.0


class Runtime:
    """One for each daemon. ``state_dir`` lives as long as the boot (below /run); bundles may live anywhere. ``sweep``: seconds
    between two looks for orphans that have ended."""

    def __init__(self, facts: HostFacts, state_dir: str, *, sweep: float = SWEEP) -> None:
        self.facts = facts
        self._state_dir = state_dir
        self._exits = f"{state_dir}/{EXIT_DIR}"
        self._runtimes = {each.name: each for each in (*facts.runtimes, facts.runtime) if each.works}
        for directory in (self._exits, *map(self._root, self._runtimes)):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        self._crun = Dialect()
        self._tasks: dict[str, Task] = {}
        self._execs: set[ExecSession] = set()
        process.become_subreaper()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="runtime")
        self._inotify = Inotify(asyncio.get_running_loop())
        self._inotify.watch(self._exits, MOVED_TO | CLOSE_WRITE, self._exit_file)
        self._orphans: set[int] = set()
        self._pause = sweep
        self._sweep()

    async def close(self) -> None:
        """Lets go of everything; containers go on under their conmons."""
        self._sweeping.cancel()
        for task in self._tasks.values():
            task.close()
        for session in list(self._execs):
            session.abandon()
        self._tasks.clear()
        self._inotify.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def ids(self) -> list[str]:
        return list(self._tasks)

    def _sweep(self) -> None:
        """A subreaper gets orphans that nobody here waits for: conmon's exit command after a start that failed, the first
        process of a build step that was killed. Those that have ended by two looks are reaped."""
        ended = {pid for pid, over in process.strays().items() if over} - {each.pid for each in self._execs}
        for pid in ended & self._orphans:
            process.reap(pid)
        self._orphans = ended
        self._sweeping = asyncio.get_running_loop().call_later(self._pause, self._sweep)

    # -- life ---------------------------------------------------------------------------------------------------------

    async def create(
        self,
        container_id: str,
        bundle: str,
        spec: Mapping[str, Any],
        *,
        tty: bool = False,
        open_stdin: bool = False,
        stdin_once: bool = False,
        log_path: str = "",
        log_limits: LogLimits = DEFAULT_LIMITS,
        exit_command: Sequence[str] = (),
        runtime: str = "",
    ) -> Created:
        """``bundle`` exists and belongs to this container alone; ``config.json`` is written here. ``runtime`` names one
        that works here, else the preferred one is taken. Raises System with Docker's sentence when it refuses, and then
        nothing is left but the bundle."""
        chosen = self._runtimes.get(runtime, self.facts.runtime)
        request = conmon.Launch(
            conmon=self.facts.conmon_path,
            runtime=chosen.command,
            runtime_root=self._root(chosen.name),
            id=container_id,
            bundle=bundle,
            exit_dir=self._exits,
            log_path=log_path,
            tty=tty,
            open_stdin=open_stdin,
            leave_stdin_open=open_stdin and not stdin_once,
            exit_command=exit_command,
            program=spec["process"]["args"][0],
        )
        with open(f"{bundle}/config.json", "wb") as config:
            config.write(msgspec.json.encode(self._crun.spec(spec) if chosen.name == "crun" else spec))
        try:
            child, pid = await launch(request)
        except BaseException as failure:
            await asyncio.shield(self._forget(container_id, spec["linux"].get("cgroupsPath", ""), chosen.name))
            if isinstance(failure, DockyardError) and "exec:" in str(failure.evidence.get("cause")):
                why = await self.explain(spec)
                raise errors.CREATE_FAILED(cause=failure.evidence["cause"], why=f" ({why})" if why else "") from None
            raise
        init, watcher = handles.identity(pid), handles.identity(child.pid)
        record = Supervised(
            id=container_id, pid=pid, pid_start=init.start_time, conmon_pid=child.pid, conmon_start=watcher.start_time,
            tty=tty, open_stdin=open_stdin, stdin_once=stdin_once, log_path=log_path, log_limits=log_limits,
            cgroup=spec["linux"].get("cgroupsPath", ""), runtime=chosen.name,
        )  # fmt: skip
        process.write_atomically(f"{bundle}/{RECORD}", msgspec.json.encode(record))
        task = Task(record, bundle, handles.open_pidfd(init), child.pidfd, child)
        self._supervise(task)
        return Created(pid, child.pid, watcher.start_time)

    async def start(self, container_id: str) -> None:
        """Lets the created process go. Raises Conflict when it has ended already."""
        task = self._task(container_id)
        fifo = f"{self._root(task.record.runtime)}/{container_id}/exec.fifo"
        async with asyncio.timeout(START_LIMIT):
            if task.record.runtime == "runc" and os.path.exists(fifo):
                await _open_gate(fifo, task)
            elif task.record.runtime == "crun" and os.path.exists(fifo):
                _knock(fifo, task)
            else:
                await self._call("start", container_id)
        task.started = True

    async def explain(self, spec: Mapping[str, Any]) -> Explanation | None:
        """Why the spec's program cannot run: also worth asking when a container ended at once with 1, 126, 127 or 255,
        because wrong CPU, missing loader and missing library show only after the start."""
        evidence = await asyncio.wrap_future(self._threads.submit(gather, spec, self.facts.arch))
        return explain(evidence)

    async def wait_exit(self, container_id: str) -> Exit:
        """Any number of waiters; also after the end, until ``delete``."""
        return await asyncio.shield(self._task(container_id).exit)

    def attach(
        self,
        container_id: str,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        overflow: Overflow = Overflow.CUT,
    ) -> Attachment:
        """Also before the start. Never waits and costs the container nothing."""
        task = self._task(container_id)
        subscription = task.hub.subscribe(stdout=stdout, stderr=stderr, overflow=overflow)
        return Attachment(task.hub, subscription, tty=task.record.tty, stdin=stdin)

    async def exec_start(self, request: ExecRequest, *, size: tuple[int, int] | None = None) -> ExecSession:
        """Runs a process in a running container; ``size`` is (height, width). Raises System in Docker's words when it
        cannot be run (``messages.exit_code_for`` tells Docker's code), Conflict when the container does not run."""
        task = self._task(request.container)
        if task.exit.done() or not task.started:
            raise errors.NOT_RUNNING(id=request.container)
        directory = f"{self._state_dir}/{EXECS}/{request.container}/{request.id}"
        session = ExecSession(request, directory)
        if size is not None:
            session.resize(*size)
        runtime = self._runtimes.get(task.record.runtime, self.facts.runtime)
        try:
            await start_exec(runtime.command, self._root(runtime.name), request, session, directory)
        except BaseException:
            await asyncio.shield(reap_failed(runtime.name, {each.pid for each in self._execs}))
            raise
        self._execs.add(session)
        session.code.add_done_callback(lambda _: self._execs.discard(session))
        return session

    async def resize(self, container_id: str, height: int, width: int) -> None:
        """The terminal's size; also before the start, and then the process finds it."""
        task = self._task(container_id)
        if task.record.tty:
            if not task.started:
                _size_at_once(task.record.pid, height, width)
            task.control(f"1 {height} {width}\n")

    def logs(self, container_id: str, log_path: str, wish: LogWish) -> AsyncIterator[LogLine]:
        """Works for a container that is not supervised (any more) too. Raises NotImplementedYet, in Docker's words, if
        no log is kept."""
        if not log_path:
            raise errors.LOGS_UNREADABLE()
        task = self._tasks.get(container_id)
        if task is None:
            return read_logs(log_path, wish, threads=self._threads, inotify=self._inotify)
        return read_logs(
            log_path, wish, threads=self._threads, inotify=self._inotify, ended=task.exit.done,
            on_end=lambda call: task.exit.add_done_callback(lambda _: call()),
        )  # fmt: skip

    async def kill(self, container_id: str, number: int = signal.SIGKILL) -> None:
        """Signals the container's first process. Raises Conflict when there is none any more."""
        task = self._task(container_id)
        try:
            handles.send_signal(task.pidfd, number)
        except ProcessLookupError:
            raise errors.NOT_RUNNING(id=container_id) from None
        if number == signal.SIGKILL and cgroup.frozen(self.facts.cgroup, task.record.cgroup):
            await self.resume(container_id)  # a frozen v1 group does not even die

    async def pause(self, container_id: str) -> None:
        await self._call("pause", container_id)

    async def resume(self, container_id: str) -> None:
        await self._call("resume", container_id)

    async def update(self, container_id: str, resources: Mapping[str, Any]) -> None:
        """``resources`` are made by ``plan.make_update``."""
        record = self._task(container_id).record
        if record.runtime == "crun":
            resources = self._crun.update(self.facts.cgroup, record.cgroup, resources)
        if resources:
            await self._call("update", "--resources", "-", container_id, stdin=msgspec.json.encode(resources))

    async def delete(self, container_id: str, *, force: bool = False) -> None:
        """Removes runtime state, cgroups, exit file. Raises Conflict if it runs and ``force`` is not given."""
        task = self._tasks.get(container_id)
        if task is not None and not task.exit.done():
            if not force:
                raise errors.NOT_RUNNING.kind(f"cannot remove container {container_id}: it is running")
            with contextlib.suppress(errors.NOT_RUNNING.kind):
                await self.kill(container_id)
            async with asyncio.timeout(KILL_LIMIT):
                await asyncio.shield(task.exit)
        if task is not None and cgroup.pids(self.facts.cgroup, task.record.cgroup):
            # A shared PID namespace: the rest became conmon's children, and become ours, to be reaped, when it ends.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(task.wait_conmon(), CONMON_LIMIT)
        name = task.record.runtime if task else self.facts.runtime.name
        await self._forget(container_id, task.record.cgroup if task else "", name)
        if task is not None:
            task.close(reap=True)
            del self._tasks[container_id]
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._exits}/{container_id}")
        shutil.rmtree(f"{self._state_dir}/{EXECS}/{container_id}", ignore_errors=True)

    async def recover(self, container_id: str, bundle: str) -> Recovered:
        """After a restart of the daemon: supervises a living container again, or tells how it ended."""
        if container_id in self._tasks:
            task = self._tasks[container_id]
            return task.exit.result() if task.exit.done() else self._alive(task)
        try:
            with open(f"{bundle}/{RECORD}", "rb") as file:
                record = msgspec.json.decode(file.read(), type=Supervised)
        except (*NOT_JSON, FileNotFoundError):
            return Lost("it was never created, or its bundle is damaged")
        if (ended := read_exit(bundle)) is not None:
            return ended
        try:
            pidfd = handles.open_pidfd(record.init)
        except ProcessLookupError:
            return read_exit(bundle) or Lost("its process has gone without an exit code")
        try:
            watcher = handles.open_pidfd(record.conmon)
        except ProcessLookupError:
            handles.send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            return read_exit(bundle) or Lost("conmon has gone; the container without log and exit code was killed")
        task = Task(record, bundle, pidfd, watcher, None)
        self._supervise(task)
        return self._alive(task)

    def _alive(self, task: Task) -> Alive:
        task.started = not os.path.exists(f"{self._root(task.record.runtime)}/{task.record.id}/exec.fifo")
        return Alive(task.record.pid, task.started, cgroup.frozen(self.facts.cgroup, task.record.cgroup))

    # -- looking ------------------------------------------------------------------------------------------------------

    def state(self, container_id: str) -> State:
        task = self._task(container_id)
        if task.exit.done():
            return State("stopped", 0, task.exit.result())
        if not task.started:
            return State("created", task.record.pid)
        frozen = cgroup.frozen(self.facts.cgroup, task.record.cgroup)
        return State("paused" if frozen else "running", task.record.pid)

    def pids(self, container_id: str) -> list[int]:
        """As the host sees them."""
        return cgroup.pids(self.facts.cgroup, self._task(container_id).record.cgroup)

    async def top(self, container_id: str, args: str = "") -> Top:
        if self._task(container_id).exit.done():
            raise errors.NOT_RUNNING(id=container_id)
        return await top(self.pids(container_id), args)

    def sample(self, container_id: str) -> Sample:
        """Raw counters; ``stats.shape`` tells them in Docker's form."""
        record = self._task(container_id).record
        return sample(self.facts.cgroup, record.cgroup, record.pid, self.facts.memory)

    # -- supervision --------------------------------------------------------------------------------------------------

    def _task(self, container_id: str) -> Task:
        try:
            return self._tasks[container_id]
        except KeyError:
            raise errors.NO_SUCH_TASK(id=container_id) from None

    def _supervise(self, task: Task) -> None:
        self._tasks[task.record.id] = task
        task.watch()

    def _exit_file(self, name: str) -> None:
        task = self._tasks.get(name)
        if task is not None:
            task.settle()
        elif not name:  # inotify overflowed: look at all
            for each in list(self._tasks.values()):
                each.settle()

    def _root(self, name: str) -> str:
        return f"{self._state_dir}/{name}"

    async def _forget(self, container_id: str, group: str, name: str) -> None:
        """What the runtime's ``delete`` does, without starting it (8 ms): its cgroups and its state directory."""
        if name in KNOWN and group:
            work = self._threads.submit(_remove_state, self.facts.cgroup, group, f"{self._root(name)}/{container_id}")
            try:
                return await asyncio.wrap_future(work)
            except OSError:
                pass  # something still lives in the group: let runc try harder
        if os.path.exists(f"{self._root(name)}/{container_id}"):
            await self._call("delete", "--force", container_id, name=name)

    async def _call(self, verb: str, *arguments: str, stdin: bytes = b"", name: str = "") -> None:
        """``arguments`` end with the container's ID."""
        if task := self._tasks.get(arguments[-1]):
            name = task.record.runtime
        runtime = self._runtimes.get(name, self.facts.runtime)
        root = self._root(runtime.name)
        log = f"{root}/{verb}-{arguments[-1]}.log"
        words = [*runtime.command, *conmon.runtime_globals(root, log, runtime.path), verb, *arguments]
        try:
            done = await process.run(words, timeout=RUNTIME_LIMIT, stdin=stdin)
        except TimeoutError:
            raise errors.TIMED_OUT(verb=verb, id=arguments[-1], limit=RUNTIME_LIMIT) from None
        logged = conmon.last_error(log)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(log)
        if done.code != 0:
            cause = messages.translate(done.stderr.decode(errors="replace") or logged)
            raise errors.RUNTIME_FAILED(verb=verb, id=arguments[-1], cause=cause)


async def _open_gate(fifo: str, task: Task) -> None:
    """runc's own protocol of start: the waiting init writes a byte to the FIFO as soon as somebody reads, then execs;
    the reader removes the FIFO, whose absence is how runc tells running from created."""
    loop = asyncio.get_running_loop()
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    opened: asyncio.Future[bool] = loop.create_future()

    def finish(going: bool) -> None:
        if not opened.done():
            opened.set_result(going)

    gone = os.dup(task.pidfd)
    loop.add_reader(fd, finish, True)
    loop.add_reader(gone, finish, False)
    try:
        if not await opened:
            raise errors.NOT_RUNNING(id=task.record.id)
        os.read(fd, 1)
        os.unlink(fifo)
    finally:
        for descriptor in (fd, gone):
            loop.remove_reader(descriptor)
            os.close(descriptor)


def _size_at_once(pid: int, height: int, width: int) -> None:
    """conmon may not have heard of a size when the program asks for it. Until the start the process is the runtime's, and
    its stdin the terminal: nobody else decides what is opened here."""
    with contextlib.suppress(OSError):
        terminal = os.open(f"/proc/{pid}/fd/0", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            set_size(terminal, height, width)
        finally:
            os.close(terminal)


def _knock(fifo: str, task: Task) -> None:
    """crun's protocol of start: its waiting init reads the FIFO, and execs when a byte comes."""
    try:
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # ENXIO: nobody reads any more
        raise errors.NOT_RUNNING(id=task.record.id) from None
    try:
        os.unlink(fifo)
        os.write(fd, b"\0")
    finally:
        os.close(fd)


def _remove_state(cgroups: cgroup.Cgroups, group: str, directory: str) -> None:
    cgroup.kill(cgroups, group)
    cgroup.remove(cgroups, group)
    shutil.rmtree(directory, ignore_errors=True)
