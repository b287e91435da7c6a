"""Published ports and name resolution."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from bench.faults.case import Case
from bench.faults.cases_start import app, good_spec, spec
from bench.faults.lab import IMAGE, OUTSIDE, Lab, wait

PORT = 18080


def _publish(port: int = 80, host: int = PORT) -> dict[str, Any]:
    return {"PortBindings": {f"{port}/tcp": [{"HostPort": str(host)}]}}


def served(bind: str = "0.0.0.0", port: int = 80, published: int = 80) -> Any:
    def step(lab: Lab) -> None:
        lab.remove("web")
        lab.run("web", ["httpd", "-f", "-p", f"{bind}:{port}", "-h", "/"], HostConfig=_publish(published),
                ExposedPorts={f"{published}/tcp": {}})  # fmt: skip

    return step


def reachable(lab: Lab) -> bool:
    return lab.outside_connects(PORT)


def _rule(rule: str) -> dict[str, Any]:
    def add(lab: Lab) -> None:
        lab.sh(f"iptables -I {rule}")

    def delete(lab: Lab) -> None:
        lab.sh(f"iptables -D {rule}")

    return {"inject": add, "undo": delete}


def _second(lab: Lab) -> bool:
    """Can the application start with the port published?"""
    lab.vars["app"] = {"Image": IMAGE, "Entrypoint": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}},
                       "HostConfig": _publish()}  # fmt: skip
    works = app(lab)
    if works:
        lab.remove("app")
    return works


def _other(lab: Lab) -> None:
    served()(lab)


def _no_other(lab: Lab) -> None:
    lab.remove("web")


def _listen(lab: Lab) -> None:
    script = f"import socket; s=socket.create_server(('0.0.0.0', {PORT})); print('ready', flush=True); s.accept()"
    child = subprocess.Popen(["nsenter", "-t", str(lab.holder), "-n", "python3", "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    lab.vars["child"] = child


def _unlisten(lab: Lab) -> None:
    child = lab.vars.pop("child")
    child.kill()
    child.wait(5)
    child.stdout.close()


def _proxy(lab: Lab) -> None:
    """A docker-proxy that serves an address of no container."""
    command = ["nsenter", "-t", str(lab.holder), "-n", "-m", "docker-proxy", "-proto", "tcp", "-host-ip", "0.0.0.0",
               "-host-port", str(PORT), "-container-ip", "172.17.0.99", "-container-port", "80"]  # fmt: skip
    read_end, write_end = os.pipe()  # docker-proxy reports on fd 3
    script = f'exec 3>&{write_end}; exec "$@"'
    child = subprocess.Popen(["sh", "-c", script, "sh", *command], pass_fds=(write_end,), stdout=subprocess.PIPE)
    os.close(write_end)
    os.read(read_end, 1)
    os.close(read_end)
    lab.vars["child"] = child
    wait(lambda: str(PORT) in lab.sh("ss -ltn"), 5)


def resolves(lab: Lab) -> bool:
    """A fresh container on the default bridge resolves a name with its own resolv.conf."""
    return app(lab) and lab.exec("app", "nslookup", "example.org")


def keeps_resolving(lab: Lab) -> bool:
    if not lab.vars.get("started"):
        lab.vars["started"] = app(lab)
    return lab.exec("app", "nslookup", "example.org")


def _dns(server: str) -> Any:
    return spec(Entrypoint=["sleep", "1000"], HostConfig={"Dns": [server]})


def _move_resolver(lab: Lab) -> None:
    """The site's resolver moves to another address; the host's file follows, containers do not."""
    from bench.faults.lab import enter

    lab.vars["resolv"] = f"nameserver {OUTSIDE}\n"
    (lab.root / "resolv.conf").write_text("nameserver 203.0.113.9\n")
    enter(lab.outside, "iptables", "-I", "INPUT", "-p", "udp", "--dport", "53", "-j", "DROP")


def _move_back(lab: Lab) -> None:
    from bench.faults.lab import enter

    (lab.root / "resolv.conf").write_text(f"nameserver {OUTSIDE}\n")
    enter(lab.outside, "iptables", "-D", "INPUT", "-p", "udp", "--dport", "53", "-j", "DROP")


def talks(network: str) -> Any:
    """A client that looks for its neighbour by name and says so in its log."""

    def step(lab: Lab) -> None:
        lab.vars["network"] = network

    return step


def by_name(lab: Lab) -> bool:
    network = lab.vars["network"]
    for name in ("web", "app"):
        lab.remove(name)
    if network != "bridge" and network not in [row["Name"] for row in lab.client.request("GET", "/networks")]:
        lab.network(network)
    lab.run("web", ["httpd", "-f", "-p", "80", "-h", "/"], HostConfig={"NetworkMode": network})
    lab.run("app", ["sh", "-c", "wget -q -O /dev/null http://web/etc/passwd"], HostConfig={"NetworkMode": network})
    return lab.wait_exit("app") == 0


CASES = [
    Case("PUB-04", "web", served(), reachable, served(bind="127.0.0.1"), served()),
    Case("PUB-05", "web", served(), reachable, served(port=81), served()),
    Case(
        "PUB-12",
        "web",
        served(),
        reachable,
        name="PUB-12/user",
        engines=("dockerd",),
        **_rule("DOCKER-USER -i up0 -p tcp --dport 80 -j DROP"),
    ),
    Case(
        "PUB-12", "web", served(), reachable, name="PUB-12/forward", **_rule("FORWARD -i up0 -p tcp --dport 80 -j DROP")
    ),
    Case("PUB-01", "app", good_spec, _second, _other, _no_other),
    Case("PUB-02", "app", good_spec, _second, _listen, _unlisten),
    Case("PUB-03", str(PORT), good_spec, _second, _proxy, _unlisten),
    Case("DNS-01", "app", good_spec, resolves, _dns("127.0.0.1"), good_spec),
    Case("DNS-10", "app", good_spec, keeps_resolving, _move_resolver, _move_back),
    Case("DNS-05", "app", talks("shop"), by_name, talks("bridge"), talks("shop")),
]
