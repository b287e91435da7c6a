"""What is done to a container on purpose, and how it is taken back, by the engine's API or in its network namespace."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dockyard.client import Client, quote
from dockyard.compose import netfault
from dockyard.compose.guard import Guard
from dockyard.errors import NotModified

Json = dict[str, Any]
MARK = "/tmp/.dockyard-chaos"
VERBS = {
    "kill": "ends it with SIGKILL, starts it again", "stop": "stops it, starts it again",
    "pause": "freezes it for the time", "restart": "restarts it", "cut": "takes it off its networks for the time",
    "cpu": "busy loops inside it", "memory": "fills memory inside it (--size MiB)", "disk": "fills disk inside it (--size MiB)",
    "delay": "what it sends is late (--delay, --jitter)", "loss": "its packets get lost, both ways (--percent)",
    "bandwidth": "its network is slow, both ways (--rate)",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Strength:
    """``size``: MiB of memory or disk. ``delay``, ``jitter``: seconds. ``percent`` of packets. ``rate``: bytes a second."""

    size: int = 64
    delay: float = 0.2
    jitter: float = 0.0
    percent: float = 20.0
    rate: int = 125_000


class Fault:
    """One verb on some containers. `undo` may be called at any time, also after half an injection; a guard does what it
    would do when this process does not live to call it."""

    def __init__(self, client: Client, verb: str, containers: Sequence[str], strength: Strength = Strength()) -> None:
        self._client, self._verb, self._containers, self._strength = client, verb, list(containers), strength
        self._guard = Guard(client)

    def inject(self) -> None:
        """Raises the engine's refusals, and NotImplemented with the reason for what this machine cannot do."""
        for name in self._containers:
            getattr(self, f"_{self._verb}")(f"/containers/{quote(name)}")

    def undo(self) -> list[str]:
        """What could not be taken back, in words. May be called at any time."""
        return self._guard.undo()

    def _post(self, path: str, query: Json | None = None, body: Any = None) -> Any:
        return self._client.request("POST", path, query, body)

    def _kill(self, place: str) -> None:
        self._guard.post(f"{place}/start")
        self._post(f"{place}/kill", {"signal": "SIGKILL"})

    def _stop(self, place: str) -> None:
        self._guard.post(f"{place}/start")
        with contextlib.suppress(NotModified):
            self._post(f"{place}/stop")

    def _pause(self, place: str) -> None:
        self._guard.post(f"{place}/unpause")
        self._post(f"{place}/pause")

    def _restart(self, place: str) -> None:
        self._post(f"{place}/restart")

    def _cut(self, place: str) -> None:
        found = self._client.request("GET", f"{place}/json")
        for network, terms in ((found.get("NetworkSettings") or {}).get("Networks") or {}).items():
            path = f"/networks/{quote(network)}"
            kept = {key: terms.get(key) for key in ("Aliases", "IPAMConfig", "Links", "DriverOpts") if terms.get(key)}
            self._guard.post(f"{path}/connect", {"Container": found["Id"], "EndpointConfig": kept})
            self._post(f"{path}/disconnect", body={"Container": found["Id"], "Force": True})

    def _cpu(self, place: str) -> None:
        self._guard.inside(place, f"kill -9 $(cat {MARK}); rm -f {MARK}")
        self._inside(place, f"echo $$ > {MARK}; while :; do :; done")

    def _memory(self, place: str) -> None:
        self._filled(place, "/dev/shm")

    def _disk(self, place: str) -> None:
        self._filled(place, "/tmp")

    def _filled(self, place: str, folder: str) -> None:
        file = f"{folder}/{MARK.rpartition('/')[2]}"
        self._guard.inside(place, f"rm -f {file}")
        self._inside(place, f"dd if=/dev/zero of={file} bs=1048576 count={self._strength.size} 2>/dev/null")

    def _inside(self, place: str, script: str) -> None:
        made = self._post(f"{place}/exec", body={"Cmd": ["sh", "-c", script]})["Id"]
        self._post(f"/exec/{made}/start", body={"Detach": True, "Tty": False})

    def _delay(self, place: str) -> None:
        netfault.delay(self._net(place), self._guard, self._strength.delay, self._strength.jitter)

    def _loss(self, place: str) -> None:
        netfault.loss(self._net(place), self._guard, self._strength.percent)

    def _bandwidth(self, place: str) -> None:
        netfault.bandwidth(self._net(place), self._guard, self._strength.rate)

    def _net(self, place: str) -> netfault.Net:
        return netfault.reach(self._client, self._verb, self._client.request("GET", f"{place}/json"))
