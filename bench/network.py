"""What networking costs, in a throw-away host (root). ``python -m bench.network [COUNT]``.

Prints: attach with one published port (first and last of COUNT), of that in the kernel thread; answers a second of the
name service with latency; restart with COUNT endpoints under a ping flood; throughput against a hand-made bridge.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import uvloop

from dockyard.kernel import netns
from dockyard.model import EndpointSettings, PortBinding
from dockyard.network import Controller, NetworkSettings, SandboxSpec

NET = {"Name": "bench", "IPAM": {"Config": [{"Subnet": "10.60.0.0/16"}]}}


def spec(number: int, root: Path, *, port: bool = True) -> SandboxSpec:
    where = root / "files" / str(number)
    where.mkdir(parents=True, exist_ok=True)
    bindings: dict[str, Any] = {"80/tcp": [PortBinding(host_port=str(10000 + number))]} if port else {}
    identity = f"{number:064x}"
    return SandboxSpec(identity, f"c{number}", f"c{number}", str(where), mode="bench", bindings=bindings)


async def attach(controller: Controller, root: Path, count: int) -> None:
    spent: list[float] = []
    used: list[float] = []
    inside: list[float] = []
    """By container: what is run in the kernel thread, without the sandbox that is made ahead for the next one."""
    run = controller._core.thread.run

    async def timed(job: Any) -> Any:
        def work() -> Any:
            begin = time.thread_time()
            try:
                return job()
            finally:
                inside[-1] += (time.thread_time() - begin) * 1e3

        return await run(work)

    controller._core.thread.run = timed  # type: ignore[method-assign]
    for number in range(count):
        made = spec(number, root)
        inside.append(0)
        begin, work = time.perf_counter(), time.process_time()
        await controller.connect(made.container_id, made.name, "bench", EndpointSettings())
        await controller.setup(made)
        spent.append((time.perf_counter() - begin) * 1e3)
        used.append((time.process_time() - work) * 1e3)
        await run(lambda: None)  # the next start finds a sandbox made ahead, as after a pause
    controller._core.thread.run = run  # type: ignore[method-assign]
    few = max(1, min(50, count // 4))
    show = statistics.median
    for name, rows in (("wall clock", spent), ("CPU, all threads", used), ("CPU, kernel thread", inside)):
        print(f"attach with a port, {name}: first {few}: {show(rows[:few]):.2f} ms, last {few} of {count}: {show(rows[-few:]):.2f} ms")


QUESTION = b"\1\0\0\1\0\0\0\0\0\0\2c1\0\0\1\0\1"
WINDOW = 32


def ask(path: str, seconds: float, rate: float, out: list[float]) -> None:
    """A client in a thread of its own inside the sandbox, with up to ``WINDOW`` questions in flight; ``rate`` a second,
    or as many as are answered (0). Packets are packed before; a question's slot is its ID."""
    with netns.entered(path):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.11", 53))
    sock.settimeout(1)
    packets = [slot.to_bytes(2, "big") + QUESTION for slot in range(WINDOW)]
    began, free, sent = [0.0] * WINDOW, list(range(WINDOW)), 0
    clock, receive, send, start = time.perf_counter, sock.recv, sock.send, time.perf_counter()
    with sock, contextlib.suppress(TimeoutError):
        while (now := clock()) < start + seconds:
            due = min(len(free), int((now - start) * rate) - sent) if rate else len(free)
            for _ in range(due):
                slot = free.pop()
                began[slot] = clock()
                send(packets[slot])
            sent += due
            if len(free) == WINDOW:
                time.sleep(max(0.0, start + (sent + 1) / rate - clock()))
                continue
            slot = receive(600)[1]
            out.append(clock() - began[slot])
            free.append(slot)


async def names(controller: Controller, rate: float = 0, seconds: float = 3.0) -> None:
    script = "import sys; from bench.network import ask_main; ask_main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))"
    path = str(controller._records.sandboxes[f"{0:064x}"].netns)
    work = time.process_time()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, path, str(seconds), str(rate), stdout=subprocess.PIPE
    )
    text, _ = await process.communicate()
    work, told = time.process_time() - work, text.decode().strip()
    each = work / max(1, int(told.split()[0])) / seconds
    asked = f"asked {rate:.0f} times a second" if rate else "asked as often as it answers"
    print(f"names, {asked}: {told}; the server's CPU for one answer {each * 1e6:.1f} us")


def ask_main(path: str, seconds: float, rate: float) -> None:
    out: list[float] = []
    thread = threading.Thread(target=ask, args=(path, seconds, rate, out))
    work = time.process_time()
    thread.start()
    thread.join()
    work = (time.process_time() - work) / len(out)
    out.sort()
    p50, p99 = (out[len(out) * part // 100] * 1e3 for part in (50, 99))
    print(f"{len(out) / seconds:.0f} answers/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms, the client's CPU {work * 1e6:.1f} us")


def ping_main(address: str, seconds: float) -> None:
    """An echo request every 2 ms; says how many were not answered within a second."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    sock.connect((address, 0))
    sock.settimeout(1)
    sent, seen, end = 0, set[int](), time.perf_counter() + seconds

    def receive() -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                data = sock.recv(200)
                if data[20] == 0:
                    seen.add(int.from_bytes(data[26:28], "big"))

    thread = threading.Thread(target=receive)
    thread.start()
    while time.perf_counter() < end:
        body = b"\x08\0\0\0" + b"\x12\x34" + sent.to_bytes(2, "big")
        total = 0x0800 + 0x1234 + sent
        check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        sock.send(body[:2] + check.to_bytes(2, "big") + body[4:])
        sent += 1
        time.sleep(0.002)
    thread.join()
    print(f"{sent} sent, {sent - len(seen)} lost")


def pinging(sandbox: Path) -> subprocess.Popen[str]:
    script = "from bench.network import ping_main; ping_main('198.51.100.1', 5)"
    with netns.entered(sandbox):
        return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


async def restart(root: Path, run: Path, count: int) -> Controller:
    """A new controller over the same records, while a container is flooded with pings."""
    flood = pinging(run / "netns" / f"{0:064x}")
    await asyncio.sleep(0.5)
    begin, work = time.perf_counter(), time.process_time()
    controller = await Controller.open(root, run, NetworkSettings())
    specs = {f"{number:064x}": spec(number, root) for number in range(count)}
    await controller.recover(dict.fromkeys(specs, 1), specs)
    took, work = time.perf_counter() - begin, time.process_time() - work
    text = await asyncio.to_thread(flood.communicate)
    print(f"restart with {count} endpoints: {took:.2f} s (CPU {work:.2f} s); ping flood to the outside meanwhile: {text[0].strip()}")
    return controller


def stream(server: str, client: str, address: str, seconds: float) -> tuple[float, float]:
    """One TCP stream between two namespaces: Gbit/s, and seconds of CPU (both ends) for a gigabyte."""
    with netns.entered(server):
        listener = socket.create_server((address, 0))
    pid = os.fork()
    if pid == 0:
        connection, _ = listener.accept()
        buffer = bytearray(1 << 20)
        while connection.recv_into(buffer):
            pass
        os._exit(0)
    with netns.entered(client):
        sender = socket.create_connection(listener.getsockname())
    payload, total, used, begin = bytes(1 << 18), 0, time.thread_time(), time.perf_counter()
    while time.perf_counter() < begin + seconds:
        total += sender.send(payload)
    sender.close()
    _, _, theirs = os.wait4(pid, 0)
    took, used = time.perf_counter() - begin, time.thread_time() - used + theirs.ru_utime + theirs.ru_stime
    listener.close()
    return total * 8 / took / 1e9, used / total * 1e9


PAIRS, STREAM = 40, 0.4
"""Streams and their seconds."""


def by_hand(lab: Path) -> tuple[str, str, str]:
    """The plainest bridge with two containers and a masquerade, as a person would type it."""
    text = """
ip link add hand0 type bridge; ip addr add 10.61.0.1/16 dev hand0; ip link set hand0 mtu 1400 up
for i in 2 3; do
  ip netns add hand$i; ip link add hv$i mtu 1400 type veth peer name eth0 mtu 1400 netns hand$i; ip link set hv$i master hand0 up
  ip -n hand$i addr add 10.61.0.$i/16 dev eth0; ip -n hand$i link set eth0 up; ip -n hand$i route add default via 10.61.0.1
done
nft 'add table ip hand; add chain ip hand post { type nat hook postrouting priority 100; }'
nft 'add rule ip hand post ip saddr 10.61.0.0/16 oifname != hand0 masquerade'
"""
    subprocess.run(["sh", "-ec", text], check=True)
    return "/run/netns/hand2", "/run/netns/hand3", "10.61.0.2"


def by_commands(count: int = 10) -> None:
    """One container attached as a script does it: ip and iptables, a command for each step."""
    subprocess.run("ip netns add hand9; ip link add hand0 type bridge; ip link set hand0 up", shell=True, check=True)
    steps = """
ip link add hv9 type veth peer name eth0 netns hand9; ip link set hv9 master hand0; ip link set hv9 up
ip -n hand9 addr add 10.61.0.9/16 dev eth0; ip -n hand9 link set eth0 up; ip -n hand9 link set lo up
ip -n hand9 route add default via 10.61.0.1
iptables -t nat -A PREROUTING -p tcp --dport 9999 -j DNAT --to 10.61.0.9:80
iptables -t nat -A POSTROUTING -s 10.61.0.9 -d 10.61.0.9 -j MASQUERADE
iptables -A FORWARD -d 10.61.0.9 -p tcp --dport 80 -j ACCEPT
"""
    spent = []
    try:
        for _ in range(count):
            begin = time.perf_counter()
            subprocess.run(["sh", "-ec", f"ip -n hand9 addr add 10.61.0.1/16 dev lo; {steps}"], check=True)
            spent.append((time.perf_counter() - begin) * 1e3)
            undo = "ip link del hv9; iptables -D FORWARD -d 10.61.0.9 -p tcp --dport 80 -j ACCEPT; iptables -t nat -F"
            subprocess.run(f"{undo}; ip -n hand9 addr flush dev lo", shell=True)
    finally:
        subprocess.run("ip netns del hand9; ip link del hand0", shell=True)
    print(f"the same by ip and iptables commands: {statistics.median(spent):.1f} ms")


def compare(controller: Controller, lab: Path) -> None:
    """Short streams by turns, in changing order: what else the machine does hits both alike."""
    boxes = [controller._records.sandboxes[f"{number:064x}"].netns for number in (0, 1)]
    own = controller._records.of(f"{0:064x}")[0].addresses[0]
    outside, out = str(lab / "outside"), "198.51.100.1"
    one, two, address = by_hand(lab)
    ways = {
        "container to container": ((boxes[0], boxes[1], own), (one, two, address)),
        "container to outside": ((outside, boxes[0], out), (outside, one, out)),
    }
    try:
        for name, (ours, hand) in ways.items():
            rows = []
            for number in range(PAIRS):
                if number % 2:
                    rows.append((stream(*ours, STREAM), stream(*hand, STREAM)))
                else:
                    rows.append((stream(*hand, STREAM), stream(*ours, STREAM))[::-1])
            rate = statistics.median(here[0] for here, _ in rows)
            print(f"{name}: {rate:.2f} Gbit/s; by ratio to by hand, median (quartiles) of {PAIRS} pairs:", end=" ")
            faster = [here[0] / there[0] for here, there in rows]
            dearer = [here[1] / there[1] for here, there in rows]
            for what, values in (("rate", faster), ("CPU for a byte", dearer)):
                low, middle, high = statistics.quantiles(values, n=4)
                print(f"{what} {middle:.3f} ({low:.2f} to {high:.2f})", end="\n" if values is dearer else ", ")
    finally:
        subprocess.run("ip netns del hand2; ip netns del hand3; ip link del hand0; nft delete table ip hand", shell=True)


async def main(count: int, lab: Path) -> None:
    root, run = lab / "root", lab / "run"
    controller = await Controller.open(root, run, NetworkSettings())
    await controller.recover({}, {})
    await controller.create_network(NET)
    await attach(controller, root, count)
    await asyncio.to_thread(by_commands)
    await names(controller)
    await names(controller, rate=20_000)
    await asyncio.to_thread(compare, controller, lab)
    await controller.close()
    controller = await restart(root, run, count)
    begin = time.perf_counter()
    for number in range(count):
        await controller.forget(f"{number:064x}")
    print(f"detach: {(time.perf_counter() - begin) / count * 1e3:.2f} ms each")
    await controller.remove_network("bench")
    await controller.uninstall()
    await controller.close()


def lay_out(lab: Path) -> int:
    """The host's namespace, with an outside behind its uplink; returns the host's."""
    host, outside = netns.create(), netns.create()
    netns.keep(host, lab / "host")
    netns.keep(outside, lab / "outside")
    text = (
        "ip link set lo up; ip link add eth0 mtu 1400 type veth peer name wire mtu 1400 netns {0}; ip link set eth0 up;"
        "ip addr add 198.51.100.2/24 dev eth0; ip route add default via 198.51.100.1"
    )
    with netns.entered(outside):
        keeper = subprocess.Popen(["sleep", "600"])
    try:
        with netns.entered(host):
            subprocess.run(["sh", "-ec", text.format(keeper.pid)], check=True)
        with netns.entered(outside):
            subprocess.run(["sh", "-ec", "ip link set lo up; ip link set wire up; ip addr add 198.51.100.1/24 dev wire"], check=True)
    finally:
        keeper.kill()
        keeper.wait()
    os.close(outside)
    return host


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        lab = Path(name)
        host = lay_out(lab)
        try:
            with netns.entered(host):
                print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, Linux {os.uname().release}")
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100, lab))
        finally:
            for path in [lab / "host", lab / "outside", *(lab / "run" / "netns").glob("*")]:
                netns.remove(path)
