"""A throw-away host: the test's own thread inside a fresh network namespace, with an "outside" behind its uplink.

Threads started meanwhile (the controller's) are born in that namespace. At the end the host must be as it was: no link,
no nft table but what the test names, no namespace file left.

    outside (198.51.100.1) ---- eth0 mtu 1400, 198.51.100.2, default route ---- host ---- what the test makes
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from dockyard.client.plugins import PluginDirs
from dockyard.kernel import netlink_route as rt
from dockyard.kernel import netns, sysctl
from dockyard.kernel.netlink import NetlinkSocket
from dockyard.kernel.nft import Nft
from dockyard.model import EndpointSettings
from dockyard.network import Controller, NetworkSettings, Sandbox, SandboxSpec

T = TypeVar("T")
OUTSIDE, HOST = "198.51.100.1", "198.51.100.2"


def inside(path: str | int | Path, job: Callable[[], T]) -> T:
    """``job`` in another namespace, in a thread of its own."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            with netns.entered(path):
                future.set_result(job())
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            future.set_exception(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return future.result()


@dataclass
class Host:
    outside: int
    own: int
    run: Path
    root: Path
    inside = staticmethod(inside)

    @property
    def plugins(self) -> PluginDirs:
        return PluginDirs((self.run / "plugins",), (self.run / "specs",))

    def links(self) -> dict[str, rt.Link]:
        with NetlinkSocket() as netlink:
            return {link.name: link for link in rt.links(netlink)}

    def settled(self) -> set[str]:
        """Names of links once the kernel has taken away those of namespaces that ended; it does so in its own time."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            found = set(self.links())
            if not any(name.startswith("veth") for name in found):
                break
            time.sleep(0.01)
        return found

    def nft(self, commands: str) -> str:
        with Nft() as nft:
            return nft.run(commands)

    def command(self, *words: str) -> str:
        """A program run on the host; raises if it fails."""
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=10).stdout

    @contextlib.contextmanager
    def server(self, where: str | int | None, address: str, port: int) -> Iterator[None]:
        """A TCP server that sends its client's address and closes."""

        def listen() -> socket.socket:
            return socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)

        listener = listen() if where is None else inside(where, listen)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, peer = listener.accept()
                    with connection:
                        connection.sendall(peer[0].encode())

        thread = threading.Thread(target=serve)
        thread.start()
        with listener:
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)  # close alone would leave accept waiting, and the namespace alive
                thread.join(5)

    def fetch(self, where: str | int | None, address: str, port: int, timeout: float = 2.0) -> str:
        """What the server at address:port said; "" when nothing answered."""

        def call() -> str:
            try:
                with socket.create_connection((address, port), timeout) as connection:
                    return connection.recv(100).decode()
            except OSError:
                return ""

        return call() if where is None else inside(where, call)


def _uplink(host: int, outside: int) -> None:
    with netns.entered(outside), NetlinkSocket() as netlink:
        netlink.batch([rt.link_up("lo"), rt.add_bridge("wire", mac="02:00:00:00:00:01", mtu=1400, filtered=False)])
        wire = rt.link(netlink, "wire")
        assert wire
        netlink.batch([
            rt.add_veth("port", mtu=1400, bridge=wire.index, netns=host, peer="eth0", mac="02:00:00:00:00:02"),
            rt.add_address(wire.index, IPv4Interface(f"{OUTSIDE}/24")),
        ])  # fmt: skip
    with netns.entered(host), NetlinkSocket() as netlink:
        eth0 = rt.link(netlink, "eth0")
        assert eth0
        netlink.batch([
            rt.link_up("lo"), rt.change_link(eth0.index, up=True),
            rt.add_address(eth0.index, IPv4Interface(f"{HOST}/24")),
            rt.add_route(None, oif=eth0.index, gateway=IPv4Address(OUTSIDE)),
        ])  # fmt: skip
        sysctl.write("net.ipv4.ip_forward", "0")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    base = tmp_path / "lab"
    host_fd, outside_fd = _make(base / "host"), _make(base / "outside")
    _uplink(host_fd, outside_fd)
    run = tmp_path / "run"
    try:
        with netns.entered(host_fd):
            made = Host(outside_fd, host_fd, run, tmp_path / "root")
            yield made
            left = made.settled() - {"lo", "eth0"}
            tables = made.nft("list tables")
        sandboxes = list((run / "netns").iterdir()) if (run / "netns").is_dir() else []
        assert (left, tables, sandboxes) == (set(), "", [])
    finally:
        for path in [base / "host", base / "outside", *(run / "netns").glob("*")]:
            netns.remove(path)
        os.close(host_fd)
        os.close(outside_fd)


def _make(path: Path) -> int:
    made = netns.create()
    netns.keep(made, path)
    return made


class Start(Protocol):
    async def __call__(self, name: str, network: str = "bridge", **more: Any) -> Sandbox: ...


def spec(name: str, where: Path, **more: Any) -> SandboxSpec:
    where.mkdir(parents=True, exist_ok=True)
    return SandboxSpec(container_id=(name * 64)[:64], name=name, hostname=name, files_dir=str(where), **more)


@pytest.fixture
def settings() -> NetworkSettings:
    """Overridden by parametrising a test with ``settings``."""
    return NetworkSettings()


@pytest.fixture
async def controller(host: Host, settings: NetworkSettings) -> AsyncIterator[Controller]:
    made = await Controller.open(host.root, host.run, settings, host.plugins)
    await made.recover({}, {})
    yield made
    for container in list(made._records.sandboxes):
        await made.forget(container)
    for network in made.networks():
        if not network.predefined:
            await made.remove_network(network.id)
    await made.uninstall()
    await made.close()


@pytest.fixture
def start(controller: Controller, tmp_path: Path) -> Start:
    async def started(
        name: str, network: str = "bridge", *, wish: EndpointSettings | None = None, **more: Any
    ) -> Sandbox:
        made = spec(name, tmp_path / name, mode=network, **more)
        await controller.connect(made.container_id, name, network, wish or EndpointSettings())
        return await controller.setup(made)

    return started
