"""The order of collecting: the engine first, then what it knows, then what the kernel says about each of these."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dockyard.client import Client
from dockyard.doctor.collect.engine import probe_tls, read_caller, read_engine
from dockyard.doctor.collect.firewall import read_firewall_of
from dockyard.doctor.collect.forensics import read_files
from dockyard.doctor.collect.host import read_host
from dockyard.doctor.collect.namespaces import read_netns
from dockyard.doctor.collect.parallel import each
from dockyard.doctor.collect.processes import read_cgroup, read_process
from dockyard.doctor.collect.sockets import port_owners, read_leaks
from dockyard.doctor.facts import Cgroup, Engine, Facts, FileFact, Firewall, Host, NetNs, Process

T = TypeVar("T")
QUICK_SECONDS = 3.0
DEEP_SECONDS = 10.0
MAX_LOGS = 200
LOG_LINES = 40
LOG_KEPT, LOG_BYTES = 16384, 8 << 20  # of each log; a line without end must not keep a thread busy after its time
LOG_SECONDS = 2.0  # dockerd reads a damaged or sparse log from its start, at 300 MB/s


class Gathering:
    """Collects one Facts. ``left`` seconds remain of the whole; each section gets no more than that."""

    def __init__(self, client: Client, environ: Mapping[str, str], *, deep: bool, seconds: float) -> None:
        self.client, self.environ, self.deep = client, environ, deep
        self.end = time.monotonic() + seconds
        self.missing: dict[str, str] = {}
        self.spent: dict[str, float] = {}

    def left(self) -> float:
        return max(0.05, self.end - time.monotonic())

    def most(self) -> float:
        """For work inside a section: less than the section has, so that one hung object costs itself and not the section."""
        return 0.8 * self.left()

    def sections(self, work: dict[str, Callable[[], Any]]) -> dict[str, Any]:
        """Run sections side by side; those that fail are named in `missing`."""

        def timed(name: str) -> Any:
            start = time.monotonic()
            try:
                return work[name]()
            finally:
                self.spent[name] = round((time.monotonic() - start) * 1000, 1)

        results, errors = each(work, timed, self.left())
        self.missing.update(errors)
        return results

    def per_container(self, name: str, running: dict[str, int], work: Callable[[str], T]) -> dict[str, T]:
        start = time.monotonic()
        results, errors = each(running, work, self.left())
        self.spent[name] = round((time.monotonic() - start) * 1000, 1)
        gone = {key for key in errors if not os.path.exists(f"/proc/{running[key]}")}
        for key in errors.keys() - gone:
            self.missing[f"{name}.{key[:12]}"] = errors[key]
        return results

    def collect(self) -> Facts:
        taken = time.time()
        engine: Engine = self.sections({"engine": lambda: read_engine(self.client)}).get("engine") or Engine(
            host=self.client.endpoint.host, reach="silent"
        )
        if engine.reach == "ok" and engine.reach_detail:
            self.missing["engine.about"] = engine.reach_detail
        caller = read_caller(self.environ, self.client.endpoint)
        api = self._api() if engine.reach == "ok" else {}
        root = f"/proc/{engine.pid}/root" if engine.pid else ""
        containers = list(api.get("containers") or [])
        pids = {c["Id"]: int(c["State"]["Pid"]) for c in containers if (c.get("State") or {}).get("Pid")}
        local = bool(engine.pid) or engine.reach != "ok"
        machine = self._machine(engine, root, containers) if local else {}
        if not local:
            elsewhere = "the engine is not on this host"
            self.missing |= dict.fromkeys(("host", "firewall", "host_net", "nets", "processes", "cgroups"), elsewhere)
        firewall, refused = machine.get("firewall") or (Firewall(), {})
        self.missing.update(refused)
        return Facts(
            taken_at=taken,
            deep=self.deep,
            engine=engine,
            caller=caller,
            host=machine.get("host") or Host(),
            containers=containers,
            networks=list(api.get("networks") or []),
            volumes=list(api.get("volumes") or []),
            images=list(api.get("images") or []),
            events=list(api.get("events") or []),
            usage=api.get("usage") or {},
            host_net=machine.get("host_net"),
            firewall=firewall,
            nets=self._nets(pids) if local else {},
            processes=self._processes(pids) if local else {},
            cgroups=self._cgroups(pids) if local else {},
            files=self._files(containers, root),
            logs=self._logs(containers),
            leaks=machine.get("leaks") or [],
            port_owners=machine.get("ports") or {},
            log_sizes=_log_sizes(containers, root) if local else {},
            missing=self.missing,
            collect_ms=self.spent,
        )

    def _api(self) -> dict[str, Any]:
        work: dict[str, Callable[[], Any]] = {
            "containers": self._inspect_all,
            "networks": self._networks,
            "volumes": lambda: (self.client.request("GET", "/volumes", timeout=self.left()) or {}).get("Volumes"),
            "images": lambda: self.client.request("GET", "/images/json", timeout=self.left()),
            "events": self._events,
        }
        if self.deep:
            work["usage"] = lambda: self.client.request("GET", "/system/df", timeout=self.left())
        return self.sections(work)

    def _inspect_all(self) -> list[dict[str, Any]]:
        rows = self.client.request("GET", "/containers/json", {"all": True}, timeout=self.left())
        ids = [str(row["Id"]) for row in rows]
        found, errors = each(
            ids, lambda key: sound(self.client.request("GET", f"/containers/{key}/json", timeout=self.most())), self.most()
        )
        for key, reason in errors.items():
            if "No such container" not in reason:
                self.missing[f"containers.{key[:12]}"] = reason
        return [found[key] for key in ids if key in found]

    def _networks(self) -> list[dict[str, Any]]:
        rows = self.client.request("GET", "/networks", timeout=self.left())
        ids = [str(row["Id"]) for row in rows]
        found, _ = each(
            ids, lambda key: self.client.request("GET", f"/networks/{key}", timeout=self.most()), self.most()
        )
        return [found.get(key) or row for key, row in zip(ids, rows, strict=True)]

    def _events(self) -> list[dict[str, Any]]:
        """What the engine remembers (dockerd: the last 256)."""
        query = {"since": "0", "until": f"{time.time():.9f}"}
        return list(self.client.objects("GET", "/events", query, timeout=self.left()))

    def _machine(self, engine: Engine, root: str, containers: list[dict[str, Any]]) -> dict[str, Any]:
        pid = engine.pid or os.getpid()
        data_root = str(engine.info.get("DockerRootDir", ""))
        ids = [str(container["Id"]) for container in containers]
        return self.sections(
            {
                "host": lambda: read_host(root, data_root),
                "host_net": lambda: read_netns(pid),
                "firewall": lambda: read_firewall_of(pid),
                "leaks": lambda: read_leaks(ids, engine.pid, containers),
                "ports": lambda: port_owners(pid),
            }
        )

    def _nets(self, pids: dict[str, int]) -> dict[str, NetNs]:
        def read(key: str) -> NetNs:
            path = Path(f"/proc/{pids[key]}/root/etc/resolv.conf")
            try:
                text = path.read_text(errors="replace")
            except OSError:
                text = None
            return read_netns(pids[key], text)

        return self.per_container("nets", pids, read)

    def _processes(self, pids: dict[str, int]) -> dict[str, Process]:
        return self.per_container("processes", pids, lambda key: read_process(pids[key]))

    def _cgroups(self, pids: dict[str, int]) -> dict[str, Cgroup]:
        return self.per_container("cgroups", pids, lambda key: read_cgroup(pids[key]))

    def _files(self, containers: list[dict[str, Any]], root: str) -> dict[str, FileFact]:
        start = time.monotonic()
        by_id = {str(container["Id"]): container for container in containers}
        results, errors = each(by_id, lambda key: read_files(self.client, by_id[key], root), self.left())
        self.spent["files"] = round((time.monotonic() - start) * 1000, 1)
        self.missing.update({f"files.{key[:12]}": reason for key, reason in errors.items()})
        return {name: fact for found in results.values() for name, fact in found.items()}

    def _logs(self, containers: list[dict[str, Any]]) -> dict[str, str]:
        """The last lines of each container, those in trouble first."""
        start = time.monotonic()
        wanted = sorted(containers, key=lambda c: (c["State"].get("ExitCode") == 0, c["State"].get("StartedAt", "")))
        tty = {str(c["Id"]): bool((c.get("Config") or {}).get("Tty")) for c in wanted[:MAX_LOGS]}

        def read(key: str) -> str:
            query = {"stdout": True, "stderr": True, "tail": str(LOG_LINES)}
            data, size, end = b"", 0, time.monotonic() + LOG_SECONDS
            with self.client.open("GET", f"/containers/{key}/logs", query, timeout=self.left()) as answer:
                for frame in answer.frames(tty=tty[key]):
                    data, size = (data + frame.data)[-LOG_KEPT:], size + len(frame.data)
                    if size > LOG_BYTES or time.monotonic() > end:
                        raise ValueError(f"its last {LOG_LINES} lines are over {size >> 10} KiB or come too slowly")
            return data.decode("utf-8", "replace")

        results, errors = each(tty, read, min(self.left(), LOG_SECONDS))
        self.spent["logs"] = round((time.monotonic() - start) * 1000, 1)
        self.missing.update({f"logs.{key[:12]}": reason for key, reason in errors.items()})
        return results


_SHAPE = {"Id": str, "State": dict, "Config": dict, "HostConfig": dict, "Mounts": list, "NetworkSettings": dict}


def sound(document: Any) -> dict[str, Any]:
    """A container's document whose parts have the kinds that everything after relies on. Raises ValueError for others."""
    odd = [key for key, kind in _SHAPE.items() if not isinstance(document, dict) or not isinstance(document.get(key) or kind(), kind)]
    if odd or not document.get("State"):
        raise ValueError(f"the engine's document makes no sense ({', '.join(odd) or 'State'})")
    return dict(document)


def _log_sizes(containers: list[dict[str, Any]], root: str) -> dict[str, int]:
    found = {}
    for container in containers:
        path = container.get("LogPath")
        if path:
            try:
                found[str(container["Id"])] = os.stat(root + path).st_size
            except OSError:
                continue
    return found


def collect(
    client: Client, environ: Mapping[str, str] | None = None, *, deep: bool = False, seconds: float = 0.0
) -> Facts:
    """Facts of the host and its engine, in bounded time. Never raises for what it finds."""
    env = os.environ if environ is None else environ
    limit = seconds or (DEEP_SECONDS if deep else QUICK_SECONDS)
    facts = Gathering(client, env, deep=deep, seconds=limit).collect()
    if facts.engine.listens:
        from msgspec.structs import replace

        facts = replace(facts, engine=replace(facts.engine, tls_probe=probe_tls(facts.engine.listens)))
    return facts
