"""What a network adds to a container's start, here and on dockerd in the same go (root). ``python -m bench.network_start [N]``.

N containers each with no network, on the default bridge, and there with one published port. Timed is POST
/containers/ID/start alone. Each round has another order of the six, and a pause before each start: what one start leaves
to be done in the background would otherwise be charged to the next (with a fixed order "no network" always followed
dockerd's heaviest step, and a network seemed to cost less than nothing).
"""

from __future__ import annotations

import contextlib
import os
import random
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
SETTLE = 0.3
"""Seconds."""


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
        turns = [(engine, kind) for kind in KINDS for engine in ENGINES]
        order = random.Random(count)
        for number in range(count):
            order.shuffle(turns)
            for engine, kind in turns:
                client = clients[engine]
                made = client.request("POST", "/containers/create", body=body(kind, number))
                time.sleep(SETTLE)
                begin = time.perf_counter()
                client.request("POST", f"/containers/{made['Id']}/start")
                spent[(engine, kind)].append((time.perf_counter() - begin) * 1e3)
                client.request("DELETE", f"/containers/{made['Id']}", {"force": True})
    for engine in ENGINES:
        base = spent[(engine, "none")]
        for kind in KINDS:
            rows = spent[(engine, kind)]
            low, middle, high = statistics.quantiles(rows, n=4)
            adds = "" if kind == "none" else f", adds {middle - statistics.median(base):+.1f} ms"
            print(f"{engine} {kind}: median {middle:.0f} ms (quartiles {low:.0f} to {high:.0f}){adds}")
    print("a difference smaller than the quartiles are apart is noise")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
