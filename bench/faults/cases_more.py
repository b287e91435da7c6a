"""Further rows: sizes of packets, old addresses, full disks, profiles, cgroups, two back ends, an open API, proxies."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.faults.case import Case, Step, nothing
from bench.faults.cases_host import by_command
from bench.faults.cases_limits import finishes, job
from bench.faults.cases_net import out, shell, web
from bench.faults.cases_ports import PORT
from bench.faults.cases_registry import HOST, authority, pulls, serve
from bench.faults.cases_registry import IMAGE as REFERENCE
from bench.faults.cases_start import spec
from bench.faults.lab import OUTSIDE, Lab, enter, wait
from dockyard.doctor.collect import collect
from dockyard.doctor.collect.registry import read_registry
from dockyard.doctor.examine import examine
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Report
from dockyard.errors import DockyardError

# Sizes ---------------------------------------------------------------------------------------------------------------


def big_ones_pass(lab: Lab) -> bool:
    """Do 200 kB from a container get through? (Small requests do in any case.)"""
    return lab.uploads("client", OUTSIDE, 200_000)


_BLACK_HOLE = "ip link set up0 mtu 1300; iptables -I OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP"
_NO_HOLE = "ip link set up0 mtu 1500; iptables -D OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP; ip route flush cache"


def fresh(script: str) -> Step:
    """The client again after the change: a path's size that a socket has learnt is kept for minutes."""

    def step(lab: Lab) -> None:
        lab.sh(script)
        lab.remove("client")
        lab.run("client", HostConfig={"NetworkMode": "shop"})

    return step


# A proxy that asks once ----------------------------------------------------------------------------------------------

_FAILED = "connect() failed (113: No route to host) while connecting to upstream, upstream: http://$ip:80/"
_PROXY = ("ip=$(nslookup backend | busybox awk '/^Address/ {a=$NF} END {print a}'); while true; do "
          f"timeout 1 wget -q -O /dev/null http://$ip/etc/passwd || echo \"{_FAILED}\"; sleep 0.3; done")  # fmt: skip


def _proxied(lab: Lab) -> None:
    lab.network("shop")
    lab.serve("backend", 80, NetworkMode="shop")
    lab.run("proxy", ["sh", "-c", _PROXY], HostConfig={"NetworkMode": "shop"})
    time.sleep(1)  # it looks its backend up once, at its start


def reaches_backend(lab: Lab) -> bool:
    """Has the proxy had no failure in the last seconds?"""
    since = time.time()
    time.sleep(2)  # it asks every 0.3 s, and waits a second at most
    query = {"stdout": True, "since": f"{since:.0f}"}
    with lab.client.open("GET", "/containers/proxy/logs", query) as answer:
        return not b"".join(frame.data for frame in answer.frames(tty=False))


def _another_address(lab: Lab) -> None:
    """The backend is made again while another container takes its old address."""
    old = lab.inspect("backend")["NetworkSettings"]["Networks"]["shop"]["IPAddress"]
    lab.remove("backend")
    subnet_mate = lab.run("mate", start=False, HostConfig={"NetworkMode": "shop"},
                          NetworkingConfig={"EndpointsConfig": {"shop": {"Aliases": ["mate"]}}})  # fmt: skip
    lab.client.request("POST", f"/containers/{subnet_mate}/start")
    lab.serve("backend", 80, NetworkMode="shop")
    lab.remove("mate")
    assert lab.inspect("backend")["NetworkSettings"]["Networks"]["shop"]["IPAddress"] != old
    time.sleep(3)  # the address that is gone stays reachable in the neighbour table until it is asked for in vain


def _restart_proxy(lab: Lab) -> None:
    lab.client.request("POST", "/containers/proxy/restart", {"t": 0})
    time.sleep(1)  # as in _proxied


# Disks ---------------------------------------------------------------------------------------------------------------


def small_disk(options: str) -> Step:
    """The engine again, with its data on a file system of its own that is small."""

    def step(lab: Lab) -> None:
        lab.stop_engine()
        lab.sh(f"mkdir -p {lab.root}/data && mount -t tmpfs -o {options} small {lab.root}/data")
        lab.start_engine()
        lab.load_image()

    return step


def big_disk(lab: Lab) -> None:
    lab.reset()
    lab.stop_engine()
    lab.sh(f"umount -l {lab.root}/data")
    lab.start_engine()


def writes(lab: Lab) -> bool:
    """Can a container write a megabyte and a file?"""
    lab.vars["app"] = {"Image": "lab:latest", "Entrypoint": ["sh", "-c", "dd if=/dev/zero of=/x bs=1024k count=1 && touch /y"]}
    lab.remove("app")
    try:
        lab.run("app", **{"Cmd": [], **lab.vars["app"]})
        return lab.wait_exit("app") == 0
    except DockyardError as error:
        lab.vars["error"] = str(error)
        return False


def _fill(lab: Lab) -> None:
    lab.remove("app")  # what it wrote would be room
    lab.sh(f"dd if=/dev/zero of={lab.root}/data/filler bs=64k 2>/dev/null || true")


def _empty(lab: Lab) -> None:
    lab.sh(f"rm -rf {lab.root}/data/filler")


def _many_files(lab: Lab) -> None:
    lab.sh(f"mkdir {lab.root}/data/filler; cd {lab.root}/data/filler; touch $(seq 1 3000) 2>/dev/null; true")


# Mounts --------------------------------------------------------------------------------------------------------------


def _mounting(lab: Lab) -> None:
    (lab.root / "site").mkdir(exist_ok=True)
    mount = {"Type": "bind", "Source": str(lab.root / "site"), "Target": "/site"}
    lab.run("app", start=False, HostConfig={"Mounts": [mount]})


def comes_up(lab: Lab) -> bool:
    try:
        lab.client.request("POST", "/containers/app/start")
    except DockyardError as error:
        lab.vars["error"] = str(error)
        return False
    lab.client.request("POST", "/containers/app/kill")
    wait(lambda: not lab.inspect("app")["State"]["Running"], 5)
    return True


def _no_site(lab: Lab) -> None:
    (lab.root / "site").rmdir()


def _site(lab: Lab) -> None:
    (lab.root / "site").mkdir()


# Profiles, knobs -----------------------------------------------------------------------------------------------------


def profile(*refused: str) -> str:
    """A seccomp profile that refuses these calls and allows the rest."""
    rows = [{"names": list(refused), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]
    return "seccomp=" + json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rows})


def _hungry(more: int) -> dict[str, Any]:
    """A program like Elasticsearch: it asks for vm.max_map_count, and says so when it is too low."""
    wanted = int(Path("/proc/sys/vm/max_map_count").read_text()) + more
    script = (f"n=$(cat /proc/sys/vm/max_map_count); [ $n -ge {wanted} ] || {{ echo \"max virtual memory areas "
              f"vm.max_map_count [$n] is too low, increase to at least [{wanted}]\"; exit 78; }}")  # fmt: skip
    return job(script)


_INIT = ("mkdir -p /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd || "
         "{ echo 'Failed to mount cgroup at /sys/fs/cgroup/systemd: Operation not permitted'; exit 255; }")  # fmt: skip

# Host network --------------------------------------------------------------------------------------------------------


def _on(mode: str) -> Step:
    def step(lab: Lab) -> None:
        lab.remove("web")
        ports = {"PortBindings": {"80/tcp": [{"HostPort": str(PORT)}]}}
        lab.run("web", ["httpd", "-f", "-p", "80", "-h", "/"], ExposedPorts={"80/tcp": {}}, HostConfig={**ports, "NetworkMode": mode})

    return step


def answers_there(lab: Lab) -> bool:
    return lab.outside_connects(PORT)


# The engine ----------------------------------------------------------------------------------------------------------


def restarted(*flags: str) -> Step:
    def step(lab: Lab) -> None:
        lab.stop_engine()
        lab.socket.unlink(missing_ok=True)
        lab.start_engine(*flags)

    return step


def closed_api(lab: Lab) -> bool:
    """Does the API answer only at its socket?"""
    return "OK" not in lab.sh("curl -s --max-time 2 http://127.0.0.1:2375/_ping", check=False)


def one_engine(lab: Lab) -> bool:
    """Is there one engine on this host?"""
    child = lab.vars.get("child")
    return child is None or child.poll() is not None


def _second_engine(lab: Lab) -> None:
    """Another one beside it, as a snap beside a package: its own data and socket."""
    place = lab.root / "snap"
    engine = [sys.executable, "-m", "dockyard.cli", "engine"] if lab.kind == "dockyard" else ["dockerd", "--bridge", "none",
                                                                                             "--iptables=false"]  # fmt: skip
    command = [*engine, "--data-root", f"{place}/data", "--exec-root", f"{place}/run", "-p", f"{place}/pid",
               "-H", f"unix://{place}/docker.sock"]  # fmt: skip
    place.mkdir()
    lab.vars["child"] = subprocess.Popen(["nsenter", "-t", str(lab.holder), "-m", "-n", *command], stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL)  # fmt: skip
    wait(lambda: (place / "docker.sock").exists(), 20)


def _no_second_engine(lab: Lab) -> None:
    child = lab.vars.pop("child", None)
    if child is not None:
        child.send_signal(signal.SIGTERM)
        child.wait(20)
        child.stdout.close()
    shutil.rmtree(lab.root / "snap", ignore_errors=True)


def _secured(lab: Lab) -> None:
    """The API on a port, for those with a certificate."""
    where = authority(lab)
    flags = ["--tlsverify", f"--tlscacert={where}/ca.crt", f"--tlscert={where}/good.crt", f"--tlskey={where}/good.key"]
    restarted(*flags, "-H", "tcp://0.0.0.0:2376")(lab)


def asks_in_clear(lab: Lab) -> bool:
    """Is a client without TLS answered? It knows two ports that were used for this."""
    return any(lab.sh(f"curl -s --max-time 3 http://127.0.0.1:{port}/_ping", check=False) == "OK" for port in (2375, 2376))


# A proxy is the only way ---------------------------------------------------------------------------------------------

_PROXY_PORT = 3128
_DROP = "INPUT -p tcp --dport 5443 -s 203.0.113.2 -j DROP"


def _behind_proxy(lab: Lab) -> None:
    serve()(lab)
    script = str(Path(__file__).with_name("proxy.py"))
    child = subprocess.Popen(["nsenter", "-t", str(lab.outside), "-n", sys.executable, script, OUTSIDE, str(_PROXY_PORT)],
                             stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    lab.vars["proxy"] = child


def _no_proxy(lab: Lab) -> None:
    if (child := lab.vars.pop("proxy", None)) is not None:
        child.kill()
        child.wait(5)
        child.stdout.close()


def outside(script: str) -> Step:
    def step(lab: Lab) -> None:
        enter(lab.outside, "sh", "-c", script)

    return step


def about_image_with_proxy(lab: Lab) -> Report:
    """As a person asks whose shell has the proxy."""
    facts = collect(lab.client, {"HTTPS_PROXY": f"http://{OUTSIDE}:{_PROXY_PORT}"}, seconds=10)
    return examine(replace(facts, registries=[read_registry(lab.vars["image"], facts, image=True)]), all_rules())


# Compose -------------------------------------------------------------------------------------------------------------


def _compose(lab: Lab, condition: str) -> None:
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": "api",
              "com.docker.compose.depends_on": f"db:{condition}:false"}  # fmt: skip
    lab.run("api", start=False, Labels=labels)
    state = lab.inspect("db")["State"]
    if state["Running"] or (condition == "service_completed_successfully" and state["ExitCode"] == 0):
        lab.client.request("POST", "/containers/api/start")


def project(command: str, condition: str) -> Step:
    """db, and api as compose leaves it: started only when what it waits for came about."""

    def step(lab: Lab) -> None:
        for name in ("api", "db"):
            lab.remove(name)
        lab.run("db", ["sh", "-c", command], Labels={"com.docker.compose.project": "shop", "com.docker.compose.service": "db"})
        time.sleep(0.5)  # a job that only runs once has ended by then
        _compose(lab, condition)

    return step


def api_runs(lab: Lab) -> bool:
    return bool(lab.inspect("api")["State"]["Running"])


_MIGRATE = "service_completed_successfully"
CASES = [
    Case("NET-11", "shop", web, big_ones_pass, fresh(_BLACK_HOLE), fresh(_NO_HOLE)),
    Case("DNS-06", "proxy", _proxied, reaches_backend, _another_address, _restart_proxy),
    Case("NET-27", "web", _on("bridge"), answers_there, _on("host"), _on("bridge")),
    Case("STO-13", "app", _mounting, comes_up, _no_site, _site),
    Case("SEC-07", "app", spec(**job("mkdir /tmp/x")), finishes,
         spec(**job("mkdir /tmp/x", HostConfig={"SecurityOpt": [profile("mkdir", "mkdirat")]})), spec(**job("mkdir /tmp/x"))),
    Case("RES-09", "app", spec(**_hungry(0)), finishes, spec(**_hungry(100_000)), spec(**_hungry(0)), cure=False),
    Case("RES-13", "app", spec(**job("true")), finishes, spec(**job(_INIT)), spec(**job("true"))),
    Case("CMP-02", "db", project("true", _MIGRATE), api_runs, project("echo migration failed; exit 3", _MIGRATE),
         project("true", _MIGRATE)),
    Case("INS-12", "iptables", web, out, shell("iptables-legacy -I FORWARD -i br-shop -j DROP"),
         shell("iptables-legacy -F FORWARD")),
    Case("STO-01", "", small_disk("size=160m"), writes, _fill, _empty, teardown=big_disk),
    Case("STO-02", "", small_disk("size=400m,nr_inodes=1500"), writes, _many_files, _empty, teardown=big_disk),
    Case("INS-14", "tcp://127.0.0.1:2375", nothing, closed_api, restarted("-H", "tcp://127.0.0.1:2375"), restarted(),
         diagnose=by_command()),
    Case("INS-15", "API", restarted("-H", "tcp://127.0.0.1:2375"), asks_in_clear, _secured, restarted("-H", "tcp://127.0.0.1:2375"),
         diagnose=by_command(address="tcp://127.0.0.1:2376"), teardown=restarted()),
    # dockerd without a bridge of its own takes the first one's docker0 away, so the first is started anew afterwards.
    Case("INS-07", "second engine", nothing, one_engine, _second_engine, _no_second_engine, teardown=restarted()),
    Case("IMG-07", f"{HOST}/{REFERENCE}", _behind_proxy, pulls, outside(f"iptables -I {_DROP}"), outside(f"iptables -D {_DROP}"),
         diagnose=about_image_with_proxy, teardown=_no_proxy),
]  # fmt: skip
