"""What a network adds to a container's start, here and on dockerd in the same go (root). ``python -m bench.network_start [N]``.

N containers each with no network, on the default bridge, and there with one published port; the three kinds and the two
engines take turns, so that a busy machine is busy for all. Timed is POST /containers/ID/start alone.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dockyard.client import Client
from dockyard.testing import kit
from dockyard.testing.engines import private_engine

ENGINES = ("dockyard", "dockerd")
KINDS = ("none", "bridge", "port")


def body(kind: str, number: int) -> dict[str, Any]:
    host: dict[str, Any] = {"NetworkMode": "none" if kind == "none" else "bridge"}
    if kind == "port":
        host["PortBindings"] = {"80/tcp": [{"HostPort": str(20000 + number)}]}
    return {"Image": "busybox", "Cmd": ["sleep", "600"], "ExposedPorts": {"80/tcp": {}}, "HostConfig": host}


def main(count: int) -> None:
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, Linux {os.uname().release}")
    spent: dict[tuple[str, str], list[float]] = {(engine, kind): [] for engine in ENGINES for kind in KINDS}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        images = kit.archive(Path(name) / "kit.tar").read_bytes()
        clients = {}
        for engine in ENGINES:
            made = stack.enter_context(private_engine(engine, Path(name) / engine))
            clients[engine] = stack.enter_context(Client(made.host, timeout=120))
            header = {"Content-Type": "application/x-tar"}
            list(clients[engine].objects("POST", "/images/load", {"quiet": True}, images, headers=header))
        for number in range(count):
            for kind in KINDS:
                for engine, client in clients.items():
                    made = client.request("POST", "/containers/create", body=body(kind, number))
                    begin = time.perf_counter()
                    client.request("POST", f"/containers/{made['Id']}/start")
                    spent[(engine, kind)].append((time.perf_counter() - begin) * 1e3)
                    if kind != "port":
                        client.request("DELETE", f"/containers/{made['Id']}", {"force": True})
    middle = {key: statistics.median(rows) for key, rows in spent.items()}
    for engine in ENGINES:
        base = middle[(engine, "none")]
        adds = {kind: middle[(engine, kind)] - base for kind in KINDS[1:]}
        print(f"{engine}: start without network {base:.0f} ms; a bridge adds {adds['bridge']:.1f} ms, with a port {adds['port']:.1f} ms")
    ours, theirs = (middle[(engine, "port")] - middle[(engine, "none")] for engine in ENGINES)
    print(f"bridge and port: {theirs / max(ours, 0.1):.1f} times less than dockerd adds")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
