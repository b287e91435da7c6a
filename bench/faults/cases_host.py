"""The engine itself, address plans, the host's own firewall, projects: what lies around a container."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from typing import Any

import msgspec

from bench.faults.case import Case, Step, nothing
from bench.faults.cases_net import shell, web
from bench.faults.cases_start import app, shop, shop_works
from bench.faults.lab import IMAGE, OUTSIDE, Lab, wait
from dockyard.doctor.finding import Report
from dockyard.errors import DockyardError

HOST_PORT = 9000


def by_command(uid: int = 0, address: str | None = None, **environ: str) -> Any:
    """What a person gets who types ``dockyard doctor`` on that host; ``address`` instead of the engine's, "" for none."""

    def step(lab: Lab) -> Report:
        drop = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"] if uid else []
        wanted = f"unix://{lab.socket}" if address is None else address
        command = ["nsenter", "-t", str(lab.holder), "-m", "-n", *drop, sys.executable, "-m", "dockyard.cli",
                   *(["-H", wanted] if wanted else []), "doctor", "--json"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, timeout=30, check=False, env={**os.environ, **environ})
        return msgspec.json.decode(done.stdout, type=Report)

    return step


def answers(lab: Lab) -> bool:
    try:
        return bool(lab.client.ping(timeout=2).api_version)
    except DockyardError:
        return False


def _start(lab: Lab) -> None:
    lab.socket.unlink(missing_ok=True)
    lab.start_engine()


def _dead_socket(lab: Lab) -> None:
    """The engine is gone; its socket file is still there and nobody listens."""
    lab.stop_engine()
    lab.socket.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(lab.socket))


def _stop(lab: Lab) -> None:
    lab.stop_engine()
    lab.socket.unlink(missing_ok=True)


def another_user_may(lab: Lab) -> bool:
    """Can user 1000 use the engine?"""
    command = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "curl", "-sf", "--max-time", "3",
               "--unix-socket", str(lab.socket), "http://d/_ping"]  # fmt: skip
    return subprocess.run(command, capture_output=True, check=False, timeout=10).returncode == 0


def _mode(mode: int) -> Step:
    def step(lab: Lab) -> None:
        for place in (lab.root, *lab.root.parents):
            if place.stat().st_mode & 0o1 == 0:
                lab.opened.setdefault(place, place.stat().st_mode & 0o7777)
                place.chmod(place.stat().st_mode | 0o11)  # the way to the socket is open; its own mode decides
        lab.socket.chmod(mode)

    return step


def would_start(lab: Lab) -> bool:
    """Does a second engine of this kind come up with the same configuration file?"""
    place, socket_path = lab.root / "second", lab.root / "second.sock"
    flags = ["--config-file", "/etc/docker/daemon.json", "-H", f"unix://{socket_path}"]
    if lab.kind == "dockyard":
        command = [sys.executable, "-m", "dockyard.cli", "engine", "--validate", *flags]
        return subprocess.run(["nsenter", "-t", str(lab.holder), "-m", "-n", *command], check=False, timeout=20,
                              capture_output=True).returncode == 0  # fmt: skip
    command = ["dockerd", "--data-root", f"{place}/data", "--exec-root", f"{place}/run", "-p", f"{place}/pid",
               "--bridge", "none", "--iptables=false", *flags]  # fmt: skip
    # In a network of its own: dockerd without a bridge takes the first one's docker0 away.
    child = subprocess.Popen(["nsenter", "-t", str(lab.holder), "-m", "unshare", "--net", *command], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        wait(lambda: child.poll() is not None or socket_path.is_socket(), 20)
        return child.poll() is None
    finally:
        child.terminate()
        child.wait(20)
        socket_path.unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)


def config(text: str) -> Step:
    def step(lab: Lab) -> None:
        (lab.root / "etc-docker" / "daemon.json").write_text(text)

    return step


def client_works(lab: Lab) -> bool:
    url = f"http://d/v{lab.vars.get('version', '1.40')}/info"
    command = ["curl", "-sf", "--max-time", "5", "-o", "/dev/null", "--unix-socket", str(lab.socket), url]
    return subprocess.run(command, check=False, timeout=10).returncode == 0


def pinned(version: str) -> Step:
    def step(lab: Lab) -> None:
        lab.vars["version"] = version

    return step


# Addresses -----------------------------------------------------------------------------------------------------------


def can_make_network(lab: Lab) -> bool:
    try:
        lab.network("one-more")
    except DockyardError:
        return False
    lab.client.request("DELETE", "/networks/one-more")
    return True


def _fill_pools(lab: Lab) -> None:
    for index in range(300):
        try:
            lab.network(f"fill{index}")
        except DockyardError:
            return
    raise RuntimeError("the pools do not end")


def _drop_networks(lab: Lab) -> None:
    for row in lab.client.request("GET", "/networks"):
        if row["Name"].startswith("fill"):
            lab.client.request("DELETE", f"/networks/{row['Id']}")


def _small(lab: Lab) -> None:
    lab.network("tiny", IPAM={"Config": [{"Subnet": "10.77.0.0/29"}]})
    lab.vars["app"] = {"Image": IMAGE, "Entrypoint": ["sleep", "1000"], "HostConfig": {"NetworkMode": "tiny"}}


def _crowd(lab: Lab) -> None:
    for index in range(5):
        lab.run(f"c{index}", HostConfig={"NetworkMode": "tiny"})


def _leave(lab: Lab) -> None:
    for index in range(5):
        lab.remove(f"c{index}")


def starts(lab: Lab) -> bool:
    """Like ``app``, and the container goes again: it must not be what fills the network."""
    works = app(lab)
    if works:
        lab.remove("app")
    return works


def _office(lab: Lab) -> None:
    """A network behind the next router, where the office has its servers."""
    from bench.faults.lab import enter

    enter(lab.outside, "sh", "-c", "ip addr replace 198.51.100.7/32 dev lo")
    lab.sh(f"ip route replace 198.51.100.0/24 via {OUTSIDE} metric 100")


def office_answers(lab: Lab) -> bool:
    return "1 packets received" in lab.sh("busybox ping -c 1 -W 1 198.51.100.7", check=False)


def _cover(lab: Lab) -> None:
    lab.network("office", IPAM={"Config": [{"Subnet": "198.51.100.0/24"}]})


def _uncover(lab: Lab) -> None:
    lab.client.request("DELETE", "/networks/office")


def _member(lab: Lab) -> None:
    lab.network("shop")
    lab.run("app", start=False, HostConfig={"NetworkMode": "shop"})


def member_starts(lab: Lab) -> bool:
    try:
        lab.client.request("POST", "/containers/app/start")
    except DockyardError:
        return False
    lab.client.request("POST", "/containers/app/kill")
    wait(lambda: not lab.inspect("app")["State"]["Running"], 5)
    return True


def _remake_network(lab: Lab) -> None:
    lab.client.request("DELETE", "/networks/shop")
    lab.network("shop")


def _remake_both(lab: Lab) -> None:
    lab.remove("app")
    lab.run("app", start=False, HostConfig={"NetworkMode": "shop"})


# The host's own services ---------------------------------------------------------------------------------------------


def _host_service(lab: Lab) -> None:
    web(lab)
    script = f"import socket; s=socket.create_server(('0.0.0.0', {HOST_PORT})); print('ready', flush=True)\nwhile 1: s.accept()"
    child = subprocess.Popen(["nsenter", "-t", str(lab.holder), "-n", sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    lab.vars["child"] = child


def reaches_host(lab: Lab) -> bool:
    gateway = lab.inspect("client")["NetworkSettings"]["Networks"]["shop"]["Gateway"]
    return lab.connects("client", gateway, HOST_PORT)


# Work that takes too long --------------------------------------------------------------------------------------------

_COUNT = "i=0; while [ $i -lt 150000 ]; do i=$((i+1)); done"


def _worker(**host_config: Any) -> Step:
    def step(lab: Lab) -> None:
        lab.remove("app")
        lab.run("app", ["sh", "-c", f"while true; do {_COUNT}; echo round; done"], HostConfig=host_config)

    return step


def quick(lab: Lab) -> bool:
    """Does a round of work end within seconds?"""
    try:
        wait(lambda: b"round" in _log(lab), 5)
    except TimeoutError:
        return False
    return True


def _log(lab: Lab) -> bytes:
    with lab.client.open("GET", "/containers/app/logs", {"stdout": True}) as answer:
        return b"".join(frame.data for frame in answer.frames(tty=False))


def _cut(lab: Lab) -> None:
    lab.client.request("POST", "/networks/shop/disconnect", body={"Container": "db", "Force": True})
    time.sleep(2)


def _join(lab: Lab) -> None:
    lab.client.request("POST", "/networks/shop/connect", body={"Container": "db", "EndpointConfig": {"Aliases": ["db"]}})
    for name in ("api", "gateway"):  # their restart policy waits longer each time, up to a minute
        lab.client.request("POST", f"/containers/{name}/restart", {"t": 0})
    time.sleep(2)


CASES = [
    Case("INS-01", "API", nothing, answers, _stop, _start, name="INS-01/stopped", diagnose=by_command()),
    Case("INS-01", "API", nothing, answers, _dead_socket, _start, name="INS-01/dead-socket", diagnose=by_command()),
    Case("INS-02", "API", _mode(0o666), another_user_may, _mode(0o660), _mode(0o666), diagnose=by_command(1000)),
    Case("INS-05", "/etc/docker/daemon.json", config("{}"), would_start, config('{"debug": true,}'), config("{}"),
         name="INS-05/comma", diagnose=by_command()),
    Case("INS-05", "/etc/docker/daemon.json", config("{}"), would_start, config('{"regstry-mirrors": []}'), config("{}"),
         name="INS-05/key", diagnose=by_command()),
    Case("INS-04", "/etc/docker/daemon.json", config("{}"), would_start, config(json.dumps({"hosts": ["unix:///x"]})),
         config("{}"), diagnose=by_command()),
    Case("INS-08", "API", nothing, client_works, pinned("1.11"), pinned("1.40"), diagnose=by_command(DOCKER_API_VERSION="1.11")),
    Case("INS-09", "API", nothing, client_works, pinned("1.99"), pinned("1.40"), diagnose=by_command(DOCKER_API_VERSION="1.99")),
    Case("NET-06", "", nothing, can_make_network, _fill_pools, _drop_networks),
    Case("NET-08", "office", _office, office_answers, _cover, _uncover),
    Case("NET-09", "tiny", _small, starts, _crowd, _leave),
    Case("NET-19", "app", _member, member_starts, _remake_network, _remake_both, engines=("dockerd",)),
    Case("NET-23", "shop", _host_service, reaches_host, shell("iptables -I INPUT -i br-shop -j DROP"),
         shell("iptables -D INPUT -i br-shop -j DROP"), name="NET-23/rule"),
    Case("NET-23", "shop", _host_service, reaches_host,
         shell("iptables -A INPUT -i up0 -j ACCEPT; iptables -P INPUT DROP"),
         shell("iptables -P INPUT ACCEPT; iptables -D INPUT -i up0 -j ACCEPT"), name="NET-23/policy"),
    Case("RES-10", "app", _worker(), quick, _worker(NanoCpus=20_000_000), _worker()),
    Case("NET-15", "db", shop, shop_works, _cut, _join, tries=10),
]  # fmt: skip
