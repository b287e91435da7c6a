"""What Docker's documentation promises about networks, seen from inside containers: asked of a private engine of ours
and, where installed, of dockerd. A promise that dockerd 20.10 keeps otherwise says so in ``OLD``."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dockyard.client import Client
from dockyard.testing import kit
from dockyard.testing.engines import PrivateEngine, private_engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
SETUP = """
network create --subnet 10.31.0.0/24 --opt com.docker.network.driver.mtu=1380 app
network create --subnet 10.32.0.0/24 other
network create --internal --subnet 10.33.0.0/24 shut
run -d --name web --network app --network-alias www --ip 10.31.0.20 -p 8080:80 -p 127.0.0.1:8081:80 busybox httpd -f -p 80
run -d --name web2 --network app --network-alias www busybox httpd -f -p 80
run -d --name far --network other busybox httpd -f -p 80
run -d --name inner --network shut busybox httpd -f -p 80
run -d --name plain --hostname box.example.org --add-host db:10.9.9.9 --dns 192.0.2.53 --dns-search example.org --dns-option ndots:2 busybox sleep 600
run -d --name old -e COLOUR=red --expose 5432 busybox sleep 600
run -d --name linked --link old:db busybox sleep 600
run -d --name shared --network container:web busybox sleep 600
run -d --name bare --network none busybox sleep 600
run -d --name hosted --network host busybox sleep 600
network connect --alias second app far
network connect other web2
network disconnect other web2
run -d --name door --add-host up:host-gateway -P --expose 90 -p 9000-9002:9000-9002 busybox sleep 600
network create --opt com.docker.network.bridge.enable_icc=false --subnet 10.34.0.0/24 quiet
run -d --name hush --network quiet busybox httpd -f -p 80
run -d --name shush --network quiet busybox sleep 600
"""
ASK = "printf 'GET /x HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 2 {target} {port}"
MAC = "02:42:0a:00:00:77"
OLD: dict[str, tuple[bool, str]] = {
    "an internal network has no default route": (False, "Docker 27 took it away; before, rules alone kept packets in"),
}
"""What dockerd 20.10 does otherwise, and why."""


class Box:
    def __init__(self, engine: PrivateEngine) -> None:
        self.engine = engine

    def run(self, container: str, *words: str) -> str:
        """Output of a command in a container, "" if it fails."""
        done = self.engine.docker("exec", container, *words, timeout=30)
        return done.stdout.strip() if done.returncode == 0 else ""

    def reaches(self, container: str, target: str, port: int = 80) -> bool:
        """Whether a web server answers there."""
        return "HTTP/1" in self.run(container, "sh", "-c", ASK.format(target=target, port=port))

    def host_reaches(self, target: str, port: int) -> bool:
        command = self.engine.inside("busybox", "sh", "-c", ASK.format(target=target, port=port))
        return "HTTP/1" in subprocess.run(command, capture_output=True, text=True, timeout=30).stdout

    def names(self, container: str, name: str) -> int:
        """How many addresses a name has there."""
        answer = self.run(container, "nslookup", name, "127.0.0.11").split("Name:", 1)[-1]
        return answer.count("Address")

    def place(self, container: str, network: str) -> dict[str, object]:
        return dict(self._inspected(container)["NetworkSettings"]["Networks"][network])

    def identity(self, container: str) -> str:
        return str(self._inspected(container)["Id"])

    def _inspected(self, container: str) -> dict[str, Any]:
        return dict(json.loads(self.engine.docker("inspect", container).stdout)[0])

    def refuses(self, *words: str) -> bool:
        return self.engine.docker(*words, timeout=60).returncode != 0


Check = Callable[[Box], bool]
PROMISES: dict[str, Check] = {
    "containers of a user-defined network find each other by name": lambda box: box.reaches("web2", "web"),
    "and by alias": lambda box: box.reaches("web2", "www"),
    "an alias that two have gives both addresses": lambda box: box.names("web", "www") == 2,
    "an address asked for is given": lambda box: box.place("web", "app")["IPAddress"] == "10.31.0.20",
    "the MTU of a network is its containers'": lambda box: box.run("web", "cat", "/sys/class/net/eth0/mtu") == "1380",
    "networks are apart from each other": lambda box: not box.reaches("web", "10.32.0.2"),
    "a network connected later is reached": lambda box: box.reaches("far", "web"),
    "and reaches by its alias": lambda box: box.reaches("web", "second"),
    "a network that was left is not reached": lambda box: not box.reaches("web2", "10.32.0.2"),
    "the interface of a network that was left is gone": lambda box: (
        "eth1" not in box.run("web2", "ls", "/sys/class/net")
    ),
    "an internal network has no default route": lambda box: "default" not in box.run("inner", "ip", "route"),
    "a published port is reached on the host's address": lambda box: box.host_reaches("10.31.0.1", 8080),
    "and on 127.0.0.1": lambda box: box.host_reaches("127.0.0.1", 8080) and box.host_reaches("127.0.0.1", 8081),
    "and from another network by the host's address": lambda box: box.reaches("plain", "172.17.0.1", 8080),
    "and by the container itself": lambda box: box.reaches("web", "10.31.0.1", 8080),
    "a port published on 127.0.0.1 is not published elsewhere": lambda box: not box.host_reaches("10.31.0.1", 8081),
    "a port that is not published is not reached from another network": lambda box: (
        not box.reaches("plain", "10.31.0.20")
    ),
    "the default bridge has no names": lambda box: not box.run("plain", "nslookup", "old", "127.0.0.11"),
    "hosts has the container's own name": lambda box: (
        "box.example.org box" in " ".join(box.run("plain", "cat", "/etc/hosts").split())
    ),
    "and what --add-host says": lambda box: "10.9.9.9 db" in " ".join(box.run("plain", "cat", "/etc/hosts").split()),
    "resolv.conf has --dns, --dns-search and --dns-option": lambda box: all(
        line in box.run("plain", "cat", "/etc/resolv.conf").splitlines()
        for line in ("nameserver 192.0.2.53", "search example.org", "options ndots:2")
    ),
    "resolv.conf of user-defined networks names 127.0.0.11": lambda box: (
        "nameserver 127.0.0.11" in box.run("web", "cat", "/etc/resolv.conf")
    ),
    "a link has a name in hosts": lambda box: "db" in box.run("linked", "cat", "/etc/hosts"),
    "and variables": lambda box: (
        {"DB_NAME=/linked/db", "DB_PORT_5432_TCP_PORT=5432", "DB_ENV_COLOUR=red"}
        <= set(box.run("linked", "sh", "-c", "tr '\\0' '\\n' </proc/1/environ").splitlines())
    ),
    "a command in the container has them, too": lambda box: "DB_PORT_5432_TCP_PORT=5432" in box.run("linked", "env"),
    "container:NAME shares interfaces": lambda box: "10.31.0.20" in box.run("shared", "ip", "addr"),
    "and ports": lambda box: box.reaches("shared", "127.0.0.1"),
    "network none has the loopback only": lambda box: box.run("bare", "ls", "/sys/class/net").split() == ["lo"],
    "network host has the host's interfaces": lambda box: "docker0" in box.run("hosted", "ls", "/sys/class/net"),
    "a network with a running container is not removed": lambda box: (
        "has active endpoints" in box.engine.docker("network", "rm", "app").stderr
    ),
    "a MAC given at create is the primary network's, also after leaving and joining again": lambda box: (
        box.place("card", "app")["MacAddress"] == MAC
        and MAC in box.run("card", "sh", "-c", "cat /sys/class/net/eth*/address")
        and box.place("card", "other")["MacAddress"] != MAC
    ),
    "an address has a name, with the network's": lambda box: "web.app" in box.run("web2", "nslookup", "10.31.0.20", "127.0.0.11"),
    "a short ID is a name": lambda box: box.reaches("web2", box.engine.docker("ps", "-qf", "name=^web$").stdout.strip()),
    "a name can be followed by the network's": lambda box: box.reaches("web2", "web.app"),
    "names of other networks are not known": lambda box: not box.reaches("web", "inner"),
    "host-gateway is the default bridge's address": lambda box: "172.17.0.1 up" in " ".join(box.run("door", "cat", "/etc/hosts").split()),
    "-P publishes what is exposed": lambda box: ":" in box.engine.docker("port", "door", "90").stdout,
    "a range is published port by port": lambda box: all(
        f":{port}" in box.engine.docker("port", "door", str(port)).stdout for port in (9000, 9001, 9002)
    ),
    "without icc containers of one network do not talk": lambda box: not box.reaches("shush", "hush"),
    "the hostname is the short ID": lambda box: box.run("old", "hostname") == box.identity("old")[:12],
    "a container on the host's network joins no other": lambda box: box.refuses("network", "connect", "app", "hosted"),
    "nor does one that shares another's": lambda box: box.refuses("network", "connect", "app", "shared"),
    "nor does one on none": lambda box: box.refuses("network", "connect", "app", "bare"),
    "a container does not join a network twice": lambda box: box.refuses("network", "connect", "app", "web"),
    "an address in use is refused": lambda box: box.refuses("run", "--rm", "--network", "app", "--ip", "10.31.0.20", "busybox", "true"),
    "an address on the default bridge cannot be asked for": lambda box: (
        box.refuses("run", "--rm", "--ip", "172.17.0.99", "busybox", "true")
    ),
    "a stopped container keeps the address that it asked for": lambda box: (
        box.engine.docker("restart", "-t", "0", "web", timeout=60).returncode == 0
        and box.place("web", "app")["IPAddress"] == "10.31.0.20"
    ),
    "a port that a container has is refused": lambda box: (
        "port is already allocated" in box.engine.docker("run", "--rm", "-p", "8080:80", "busybox", "true").stderr
    ),
}


@pytest.fixture(scope="module", params=["dockyard", "dockerd"])
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    if request.param == "dockerd" and shutil.which("dockerd") is None:
        pytest.skip("dockerd is not installed")
    root = tmp_path_factory.mktemp("behaviour")
    images = kit.archive(root / "kit.tar")
    with private_engine(request.param, root / request.param) as engine:
        assert engine.docker("load", "-i", str(images)).returncode == 0
        for line in SETUP.strip().splitlines():
            done = engine.docker(*line.split())
            assert done.returncode == 0, f"{line}: {done.stderr}"
        make_card(engine)
        yield Box(engine)


def make_card(engine: PrivateEngine) -> None:
    """A container with a MAC, which leaves its network and joins it again. By the API: today's docker refuses
    --mac-address where the engine is of before API 1.44."""
    body = {"Image": "busybox", "Cmd": ["sleep", "600"], "MacAddress": MAC, "HostConfig": {"NetworkMode": "app"}}
    with Client(engine.host, timeout=60) as client:
        client.request("POST", "/containers/create", {"name": "card"}, body)
        client.request("POST", "/containers/card/start")
        for network, action in (("other", "connect"), ("app", "disconnect"), ("app", "connect")):
            client.request("POST", f"/networks/{network}/{action}", body={"Container": "card"})


def test_promises_are_kept(box: Box) -> None:
    broken = []
    for promise, check in PROMISES.items():
        expected = OLD.get(promise, (True, ""))[0] if box.engine.kind == "dockerd" else True
        if check(box) != expected:
            broken.append(promise)
    assert not broken, "\n".join(broken)
