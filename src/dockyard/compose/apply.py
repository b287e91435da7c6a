"""Does what a plan says: one call to the engine for each operation."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dockyard.client import Client, quote
from dockyard.compose import graph, labels, mounts, translate
from dockyard.compose.errors import HOOK_FAILED, PRE_START_FAILED
from dockyard.compose.graph import Stop
from dockyard.compose.labels import image_name
from dockyard.compose.observe import Container, State
from dockyard.compose.plan import ANEW, ANONYMOUS, Operation, Plan
from dockyard.compose.progress import Event, Progress
from dockyard.compose.project import Project
from dockyard.compose.readiness import await_condition, exit_code
from dockyard.compose.translate import Situation, Wanted
from dockyard.errors import Conflict, DockyardError, NotFound, NotModified

Json = dict[str, Any]
STOP_MARGIN = 60.0
"""Seconds beyond a container's own grace until the engine must have answered."""
DEFAULT_GRACE = 10
HOOK_LINES = 20
"""Lines of a pre_start hook's output that are told."""


@dataclass(slots=True)
class Applier:
    """One run. ``timeout``: seconds of grace at stops, None for each container's own. ``wait_timeout``: longest wait for
    a condition, None for ever. ``volumes``: anonymous volumes go with removed containers."""

    client: Client
    project: Project
    state: State
    progress: Progress
    timeout: int | None = None
    wait_timeout: float | None = None
    proxy: Mapping[str, str] = field(default_factory=dict)
    environment_files: tuple[str, ...] = ()
    read: Callable[[str], str] = lambda path: ""
    volumes: bool = False
    signal: str = ""
    before_start: Callable[[str, str], None] | None = None
    """Called with ID and name of a container about to start: the place to attach."""
    before_stop: Callable[[str, int], None] = lambda service, number: None
    """Called with service and number of a container about to stop: the place to take it out of a balancer."""
    _ids: dict[str, str] = field(default_factory=dict)
    """Name (also a temporary one) to ID of what was made in this run."""
    _live: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    """Service to (number, ID, name)."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _starting: threading.Lock = field(default_factory=threading.Lock)

    def know(self) -> None:
        """Takes over what was observed; before single containers are created."""
        for item in self.state.containers:
            if not item.oneoff and item.name not in self._ids:
                self._live.setdefault(item.service, []).append((item.number, item.id, item.name))
                self._ids[item.name] = item.id

    def apply(self, plan: Plan, parallel: int = graph.PARALLEL) -> None:
        """Raises what the first failed operation raised."""
        self.know()
        for warning in plan.warnings:
            self.progress.warn(warning)
        for item in plan.unchanged:
            self.progress.on(Event(f"Container {item.name}", "Running", "done"))
        graph.run(plan.operations, self._perform, parallel)

    def _perform(self, one: Operation, stop: Stop) -> None:
        words = _WORDS.get(one.verb, ("", ""))
        if one.verb in {"create", "rename"} and (one.replaced is not None or one.verb == "rename"):
            words = ("Recreate", "") if one.verb == "create" else ("", "Recreated")
        elif one.reason in {ANEW, ANONYMOUS}:
            words = ("", "")
        if words[0]:
            self.progress.on(Event(one.subject, words[0]))
        try:
            told = self._do(one, stop)
        except graph.Cancelled:
            raise
        except DockyardError as error:
            self.progress.on(Event(one.subject, "Error", "error", str(error)))
            raise
        if told is not None:
            self.progress.on(told)
        elif words[1]:
            self.progress.on(Event(one.subject, words[1], "done"))

    def _do(self, one: Operation, stop: Stop) -> Event | None:
        if one.verb == "wait":
            return self._wait(one, stop)
        if one.verb == "pre_start":
            return self._pre_start(one, stop)
        work = getattr(self, "_" + one.verb.replace(" ", "_"))
        told: Event | None = work(one)
        return told

    def containers(self) -> dict[str, list[tuple[str, str]]]:
        """(ID, name) of each service's containers as they are now, in order of number."""
        with self._lock:
            return {name: [(item[1], item[2]) for item in sorted(rows)] for name, rows in self._live.items()}

    def _target(self, one: Operation, called: str) -> str:
        return one.target or self._ids.get(called, called)

    # Networks and volumes

    def _create_network(self, one: Operation) -> None:
        with contextlib.suppress(Conflict):  # another compose made it in this very moment
            self.client.request("POST", "/networks/create", body=translate.network(self.project, one.name))

    def _remove_network(self, one: Operation) -> Event | None:
        try:
            self.client.request("DELETE", f"/networks/{quote(one.target)}")
        except NotFound:
            return Event(one.subject, "No resource found to remove", "warning")
        except DockyardError as error:
            # 403 "has active endpoints": somebody else's container is on it
            if "active endpoints" not in str(error) and not isinstance(error, Conflict):
                raise
            return Event(one.subject, "Resource is still in use", "warning")
        return None

    def _disconnect(self, one: Operation) -> None:
        body = {"Container": one.target, "Force": True}
        _ignoring_absence(lambda: self.client.request("POST", f"/networks/{quote(one.name)}/disconnect", body=body))

    def _create_volume(self, one: Operation) -> None:
        self.client.request("POST", "/volumes/create", body=translate.volume(self.project, one.name))

    def _remove_volume(self, one: Operation) -> Event | None:
        return self._remove_or_tell(one, f"/volumes/{quote(one.target)}")

    def _remove_image(self, one: Operation) -> Event | None:
        return self._remove_or_tell(one, f"/images/{quote(one.target)}")

    def _remove_or_tell(self, one: Operation, path: str) -> Event | None:
        try:
            self.client.request("DELETE", path)
        except NotFound:
            if one.reason == ANONYMOUS:
                return None
            return Event(one.subject, "Warning: No resource found to remove", "done")
        except Conflict:
            return Event(one.subject, "Resource is still in use", "warning")
        return None

    # Containers

    def _create(self, one: Operation) -> None:
        number, service = one.number, self.project.services[one.service]
        old = one.replaced
        wanted = Wanted(one.service, number)
        if old is not None:
            inherited = () if one.condition == "renew" else self.inherited(one.service, service, old)
            wanted = replace(wanted, replaces=f"{one.service}{self.project.separator}{number}", inherited=inherited)
        made = self.create(wanted, one.name)
        final = one.name if old is None else one.name.partition("_")[2]
        with self._lock:
            self._ids[one.name] = self._ids[final] = made
            rows = self._live.setdefault(one.service, [])
            rows[:] = [row for row in rows if row[0] != number]
            rows.append((number, made, final))

    def create(self, wanted: Wanted, name: str) -> str:
        """ID of a new container of the service."""
        service = translate.resolve(self.project.services[wanted.service], self.containers())
        situation = self._situation(wanted.service, service)
        body = translate.container(self.project, wanted, service, situation)
        query = {"name": name, "platform": service.get("platform")}
        answer = self.client.request("POST", "/containers/create", query, body)
        for warning in answer.get("Warnings") or []:
            self.progress.warn(warning)
        self._connect_later(answer["Id"], wanted, service, situation)
        return str(answer["Id"])

    def _situation(self, name: str, service: Json) -> Situation:
        image = self.state.images.get(image_name(self.project.name, self.project.separator, name, service))
        return Situation(
            api=self.state.api, containers=self.containers(), image_id=image.id if image else "", proxy=self.proxy,
            environment_files=self.environment_files, read=self.read,
        )  # fmt: skip

    def _connect_later(self, container: str, wanted: Wanted, service: Json, situation: Situation) -> None:
        for network, endpoint in translate.later_networks(self.project, wanted, service, situation).items():
            body = {"Container": container, "EndpointConfig": endpoint}
            self.client.request("POST", f"/networks/{quote(network)}/connect", body=body)

    def inherited(self, name: str, service: Json, old: Container) -> tuple[Json, ...]:
        """The old container's anonymous volumes, so that their data go on."""
        image = self.state.images.get(image_name(self.project.name, self.project.separator, name, service))
        declared = set(image.volumes) if image else set()
        given = {volume["target"]: volume.get("source") for volume in service.get("volumes") or []}
        kept = []
        for mount in old.row.get("Mounts") or []:
            target = mount.get("Destination")
            anonymous = (target in given and not given[target]) or (target not in given and target in declared)
            if mount.get("Type") == "volume" and anonymous:
                row = {"Type": "volume", "Source": mount.get("Name"), "Target": target}
                kept.append(row if mount.get("RW", True) else {**row, "ReadOnly": True})
        return tuple(kept)

    def _start(self, one: Operation) -> None:
        called = one.subject.removeprefix("Container ")
        target = self._target(one, called)
        service = self.project.services.get(one.service) or {}
        self.inject(target, service)
        if self.before_start is not None:
            self.before_start(target, called)
        # One at a time where a range of host ports is shared out: two starts could be given the same one.
        ranges = any("-" in str(port.get("published") or "") for port in service.get("ports") or [])
        if ranges:
            with self._starting:
                self._post(target, "start")
        else:
            self._post(target, "start")
        for hook in service.get("post_start") or []:
            self.hook(target, one.service, "post_start", hook)

    def inject(self, target: str, service: Json) -> None:
        """Secrets and configs that are no files of this host."""
        files = mounts.injected(self.project, service)
        if not files:
            return
        import io  # few projects need them, and an `up` that finds nothing to do counts its milliseconds
        import tarfile

        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for item in files:
                entry = tarfile.TarInfo(item.target.lstrip("/"))
                entry.size, entry.mode, entry.uid, entry.gid = len(item.content), item.mode, item.uid, item.gid
                tar.addfile(entry, io.BytesIO(item.content))
        self.client.put_archive(target, "/", buffer.getvalue(), copyUIDGID=any(item.uid or item.gid for item in files))

    def hook(self, target: str, name: str, kind: str, hook: Json) -> None:
        """A command in the running container. Raises Conflict when it fails."""
        body = {
            "Cmd": list(hook.get("command") or []), "User": str(hook.get("user") or ""), "Privileged": bool(hook.get("privileged")),
            "WorkingDir": str(hook.get("working_dir") or ""), "AttachStdout": True, "AttachStderr": True,
            "Env": [
                key if value is None else f"{key}={value}" for key, value in _pairs(hook.get("environment")).items()
            ],
        }  # fmt: skip
        made = self.client.request("POST", f"/containers/{quote(target)}/exec", body=body)["Id"]
        with self.client.hijack(f"/exec/{made}/start", body={"Detach": False, "Tty": False}) as stream:
            for frame in stream.frames(tty=False):
                text = frame.data.decode("utf-8", "replace").rstrip("\n")
                if text:
                    self.progress.on(Event(f"Service {name}", f"{kind}: {text}"))
        code = self.client.request("GET", f"/exec/{made}/json").get("ExitCode")
        if code:
            raise HOOK_FAILED(hook=kind, service=name, code=code)

    def _pre_start(self, one: Operation, stop: Stop) -> Event:
        """Each hook in a container of its own, one after another. One that fails stays, to be looked into, and Conflict is
        raised; it goes at the next run or at `down`."""
        service = self.project.services[one.service]
        replica = self.containers()[one.service][0][0]
        stale = {"label": [f"{labels.PROJECT}={self.project.name}", f"{labels.SERVICE}={one.service}", labels.HOOK]}
        for row in self.client.request("GET", "/containers/json", {"all": True, "filters": stale}):
            _ignoring_absence(lambda row=row: self._discard(row["Id"]))  # type: ignore[misc]
        situation = self._situation(one.service, service)
        for hook in service["pre_start"]:
            resolved = translate.resolve(service, self.containers())
            body = translate.hook_container(self.project, one.service, resolved, hook, replica, situation)
            made = self.client.request("POST", "/containers/create", body=body)["Id"]
            wanted = Wanted(one.service, number=0, aliases=False)
            self._connect_later(made, wanted, resolved, situation)
            try:
                self.progress.on(Event(one.subject, "pre_start"))
                self._post(made, "start")
                code = exit_code(self.client, made, stop)
            except BaseException:
                self._discard(made)
                raise
            tail = self._tail(made)
            for line in tail:
                self.progress.on(Event(one.subject, f"pre_start: {line}"))
            if code:
                last = tail[-1] if tail else "it said nothing"
                raise PRE_START_FAILED(service=one.service, code=code, last=last, container=made[:12])
            self._discard(made)
        return Event(one.subject, "pre_start done", "done")

    def _discard(self, container: str) -> None:
        self.client.request("DELETE", f"/containers/{container}", {"v": True, "force": True})

    def _tail(self, container: str) -> list[str]:
        query = {"stdout": True, "stderr": True, "tail": HOOK_LINES}
        with self.client.open("GET", f"/containers/{container}/logs", query) as answer:
            text = b"".join(frame.data for frame in answer.frames(tty=False)).decode("utf-8", "replace")
        return text.splitlines()

    def _stop(self, one: Operation) -> None:
        if one.reason != ANEW:  # what takes its place takes its slot too
            self.before_stop(one.service, one.number)
        service = self.project.services.get(one.service) or {}
        for hook in service.get("pre_stop") or []:
            try:
                self.hook(one.target, one.service, "pre_stop", hook)
            except (Conflict, NotFound) as error:
                if error.code:  # the hook's own failure; the engine's refusals say that the container has ended
                    raise
                break
        grace = self.timeout if self.timeout is not None else _grace(service)
        self._post(one.target, "stop", {"t": self.timeout}, STOP_MARGIN + grace)

    def _restart(self, one: Operation) -> None:
        service = self.project.services.get(one.service) or {}
        grace = self.timeout if self.timeout is not None else _grace(service)
        self._post(one.target, "restart", {"t": self.timeout}, STOP_MARGIN + grace)

    def _kill(self, one: Operation) -> None:
        self._post(one.target, "kill", {"signal": self.signal or "SIGKILL"})

    def _pause(self, one: Operation) -> None:
        self._post(one.target, "pause")

    def _unpause(self, one: Operation) -> None:
        self._post(one.target, "unpause")

    def _remove(self, one: Operation) -> None:
        path = f"/containers/{quote(one.target)}"
        _ignoring_absence(lambda: self.client.request("DELETE", path, {"v": self.volumes, "force": True}))
        with self._lock:
            for rows in self._live.values():
                rows[:] = [row for row in rows if row[1] != one.target]

    def _rename(self, one: Operation) -> None:
        self.client.request("POST", f"/containers/{self._ids[one.name]}/rename", {"name": one.name})

    def _post(self, target: str, action: str, query: Json | None = None, timeout: float | None = None) -> None:
        with contextlib.suppress(NotModified):
            self.client.request("POST", f"/containers/{quote(target)}/{action}", query, timeout=timeout)

    def _wait(self, one: Operation, stop: Stop) -> Event | None:
        rows = self.containers().get(one.service, [])
        told = await_condition(self.client, one, rows, stop, self.wait_timeout, self.progress)
        return None if told is None else Event(one.subject, told[0], told[1])


_WORDS = {
    "create network": ("Creating", "Created"), "remove network": ("Removing", "Removed"),
    "create volume": ("Creating", "Created"), "remove volume": ("Removing", "Removed"),
    "create": ("Creating", "Created"), "start": ("Starting", "Started"), "stop": ("Stopping", "Stopped"),
    "remove": ("Removing", "Removed"), "kill": ("Killing", "Killed"), "restart": ("Restarting", "Restarted"),
    "pause": ("Pausing", "Paused"), "unpause": ("Unpausing", "Unpaused"), "remove image": ("Removing", "Removed"),
}  # fmt: skip


def _grace(service: Json) -> int:
    from dockyard.compose.canonical import duration

    given = service.get("stop_grace_period")
    return DEFAULT_GRACE if given is None else int(duration(given))


def _pairs(value: Any) -> dict[str, str | None]:
    from dockyard.compose.canonical import pairs

    return dict(pairs(value))


def _ignoring_absence(ask: Callable[[], Any]) -> None:
    with contextlib.suppress(NotFound):
        ask()
