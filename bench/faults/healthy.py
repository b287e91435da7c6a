"""Healthy hosts with lawful oddities: nothing on them is a fault, so every fault that is named is a false alarm.

A host is made from its seed: a few of the oddities below, in a random order. Each is something that a person may find
on a host that works, and that a hasty check takes for broken.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from bench.faults.lab import IMAGE, Lab

Oddity = Callable[[Lab, str], None]
TRAP = "trap 'exit 0' TERM; while true; do sleep 0.1; done"


def _done(lab: Lab, name: str) -> None:
    lab.run(name, ["true"])


def _terminated(lab: Lab, name: str) -> None:
    lab.run(name, ["sh", "-c", "trap 'exit 143' TERM; while true; do sleep 0.1; done"])
    lab.client.request("POST", f"/containers/{name}/stop", {"t": 2})


def _killed_by_hand(lab: Lab, name: str) -> None:
    lab.run(name)
    lab.client.request("POST", f"/containers/{name}/kill")


def _never_started(lab: Lab, name: str) -> None:
    lab.run(name, start=False)


def _paused(lab: Lab, name: str) -> None:
    lab.run(name)
    lab.client.request("POST", f"/containers/{name}/pause")


def _internal(lab: Lab, name: str) -> None:
    lab.network(f"{name}-net", Internal=True)
    lab.run(name, HostConfig={"NetworkMode": f"{name}-net"})


def _no_talk(lab: Lab, name: str) -> None:
    lab.network(f"{name}-net", Options={"com.docker.network.bridge.enable_icc": "false"})
    for part in ("a", "b"):
        lab.run(f"{name}-{part}", HostConfig={"NetworkMode": f"{name}-net"})


def _segmented(lab: Lab, name: str) -> None:
    for part in ("front", "back"):
        lab.network(f"{name}-{part}")
        labels = {"com.docker.compose.project": name, "com.docker.compose.service": part}
        lab.run(f"{name}-{part}-1", Labels=labels, HostConfig={"NetworkMode": f"{name}-{part}"})


def _loopback_port(lab: Lab, name: str) -> None:
    port = {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}}
    lab.run(name, ["httpd", "-f", "-p", "80", "-h", "/"], HostConfig=port, ExposedPorts={"80/tcp": {}})


def _published(lab: Lab, name: str) -> None:
    port = {"PortBindings": {"80/tcp": [{"HostPort": ""}]}}
    lab.run(name, ["httpd", "-f", "-p", "0.0.0.0:80", "-h", "/"], HostConfig=port, ExposedPorts={"80/tcp": {}})


def _exposed_only(lab: Lab, name: str) -> None:
    lab.run(name, ExposedPorts={"8080/tcp": {}, "53/udp": {}})


def _host_network(lab: Lab, name: str) -> None:
    lab.run(name, HostConfig={"NetworkMode": "host"})


def _no_network(lab: Lab, name: str) -> None:
    lab.run(name, HostConfig={"NetworkMode": "none"})


def _shared_network(lab: Lab, name: str) -> None:
    owner = lab.run(f"{name}-owner")
    lab.run(name, HostConfig={"NetworkMode": f"container:{owner}"})


def _healthy(lab: Lab, name: str) -> None:
    check = {"Test": ["CMD", "true"], "Interval": 200_000_000}
    lab.run(name, Healthcheck=check)


def _starting(lab: Lab, name: str) -> None:
    check = {"Test": ["CMD", "false"], "Interval": 300_000_000_000, "StartPeriod": 600_000_000_000}
    lab.run(name, Healthcheck=check)


def _restarted_by_policy(lab: Lab, name: str) -> None:
    lab.run(name, HostConfig={"RestartPolicy": {"Name": "unless-stopped"}})


def _read_only(lab: Lab, name: str) -> None:
    lab.run(name, ["sh", "-c", "touch /tmp/x && exec sleep 1000"],
            HostConfig={"ReadonlyRootfs": True, "Tmpfs": {"/tmp": ""}})  # fmt: skip


def _no_capabilities(lab: Lab, name: str) -> None:
    lab.run(name, User="1000:1000", HostConfig={"CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"]})


def _limited(lab: Lab, name: str) -> None:
    lab.run(name, HostConfig={"Memory": 64 << 20, "PidsLimit": 50, "NanoCpus": 500_000_000})


def _many_processes(lab: Lab, name: str) -> None:
    lab.run(name, ["sh", "-c", "for i in 1 2 3 4 5; do sleep 1000 & done; wait"], HostConfig={"PidsLimit": 20})


def _volume(lab: Lab, name: str) -> None:
    lab.run(name, HostConfig={"Binds": [f"{name}-data:/data"]})


def _spare_volumes(lab: Lab, name: str) -> None:
    for index in range(4):
        lab.client.request("POST", "/volumes/create", body={"Name": f"{name}-{index}"})


def _bind_file(lab: Lab, name: str) -> None:
    lab.run(name, HostConfig={"Binds": ["/etc/hostname:/etc/site-name:ro"]})


def _empty_dir_on_empty_dir(lab: Lab, name: str) -> None:
    (lab.root / "spool").mkdir(exist_ok=True)
    lab.run(name, HostConfig={"Binds": [f"{lab.root}/spool:/srv"]})


def _spare_network(lab: Lab, name: str) -> None:
    lab.network(f"{name}-net")


def _two_networks(lab: Lab, name: str) -> None:
    for part in ("a", "b"):
        lab.network(f"{name}-{part}")
    key = lab.run(name, HostConfig={"NetworkMode": f"{name}-a"})
    lab.client.request("POST", f"/networks/{name}-b/connect", body={"Container": key})


def _own_dns(lab: Lab, name: str) -> None:
    lab.run(name, HostConfig={"Dns": ["203.0.113.1"], "DnsSearch": ["example.org"]})


def _chatty(lab: Lab, name: str) -> None:
    lab.run(
        name, ["sh", "-c", "echo error: this is only a test of the log; echo permission denied? no; exec sleep 1000"]
    )


def _failed_job(lab: Lab, name: str) -> None:
    """A test run that ended with 1: its owner's business, and it said why."""
    lab.run(name, ["sh", "-c", "echo 3 tests failed; exit 1"])


def _init(lab: Lab, name: str) -> None:
    lab.run(name, ["sh", "-c", TRAP], HostConfig={"Init": True})


def _stopped_cleanly(lab: Lab, name: str) -> None:
    lab.run(name, ["sh", "-c", TRAP])
    lab.client.request("POST", f"/containers/{name}/stop", {"t": 2})


def _terminal(lab: Lab, name: str) -> None:
    lab.run(name, ["sh"], Tty=True, OpenStdin=True)


def _exec_failed(lab: Lab, name: str) -> None:
    lab.run(name)
    lab.exec(name, "false")


def _other_table(lab: Lab, name: str) -> None:
    lab.sh("nft 'add table inet site; add chain inet site in { type filter hook input priority 0; policy accept; }; "
           "add rule inet site in tcp dport 23 drop'")  # fmt: skip


def _blackhole_route(lab: Lab, name: str) -> None:
    lab.sh("ip route replace blackhole 198.51.100.0/24")


def _unused_link(lab: Lab, name: str) -> None:
    lab.sh("ip link show vpn0 >/dev/null 2>&1 || ip link add vpn0 type bridge")


def _dangling_image(lab: Lab, name: str) -> None:
    lab.client.request("POST", f"/images/{IMAGE}/tag", {"repo": name, "tag": "old"})


ODDITIES: tuple[Oddity, ...] = tuple(
    value
    for key, value in list(globals().items())
    if key.startswith("_") and not key.startswith("__") and callable(value)
)
PER_HOST = (4, 9)
SETTLE = 0.3
"""Seconds for programs to begin to listen and health checks to have run once."""


def populate(lab: Lab, seed: int) -> list[str]:
    """Make the host of this seed; gives the names of its oddities."""
    chance = random.Random(seed)
    chosen = chance.sample(ODDITIES, chance.randint(*PER_HOST))
    for index, oddity in enumerate(chosen):
        oddity(lab, f"odd{index}")
    time.sleep(SETTLE)
    return [oddity.__name__.strip("_") for oddity in chosen]


def clean(lab: Lab) -> None:
    lab.reset()
    lab.sh("nft delete table inet site 2>/dev/null; ip route del blackhole 198.51.100.0/24 2>/dev/null; "
           "ip link del vpn0 2>/dev/null; true")  # fmt: skip
    for row in lab.client.request("GET", "/images/json"):
        for tag in row.get("RepoTags") or []:
            if tag not in (IMAGE, "<none>:<none>"):
                lab.client.request("DELETE", f"/images/{tag}")
