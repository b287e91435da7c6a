"""Ways out of a container that it was given: each reaches something that a container should not. Asked by the audit."""

from __future__ import annotations

from typing import Any

from bench.faults.case import Case, Step
from bench.faults.cases_ports import PORT, served
from bench.faults.lab import Lab
from dockyard.doctor.audit import audit
from dockyard.doctor.collect import collect
from dockyard.doctor.examine import examine, rank
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Report
from dockyard.doctor.verbs.audit import AUDITED


def audited(lab: Lab) -> Report:
    facts = collect(lab.client, {}, seconds=10)
    checks = examine(facts, [rule for rule in all_rules() if rule.id in AUDITED])
    return Report(rank([*audit(facts), *checks.findings]), checks.checks)


def holds(script: str) -> Any:
    """A probe: does the container fail at what only the host's owner should do?"""

    def probe(lab: Lab) -> bool:
        return not lab.exec("app", "sh", "-c", script)

    return probe


def made(**host_config: Any) -> Step:
    def step(lab: Lab) -> None:
        lab.remove("app")
        binds = [bind.format(socket=lab.socket) for bind in host_config.get("Binds", [])]
        lab.run("app", HostConfig={**host_config, "Binds": binds})

    return step


def way_out(label: str, rule: str, script: str, **host_config: Any) -> Case:
    return Case(rule, "app", made(), holds(script), made(**host_config), made(), name=label, diagnose=audited)


def closed(lab: Lab) -> bool:
    """Is the port closed to others, as the administrator's input policy says?"""
    return not lab.outside_connects(PORT)


def _policy(lab: Lab) -> None:
    lab.sh("iptables -P INPUT DROP; iptables -I INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT; "
           "iptables -I INPUT -i lo -j ACCEPT")  # fmt: skip


def _open(lab: Lab) -> None:
    served()(lab)


def _close(lab: Lab) -> None:
    lab.remove("web")


def _no_policy(lab: Lab) -> None:
    lab.sh("iptables -P INPUT ACCEPT; iptables -D INPUT -i lo -j ACCEPT; "
           "iptables -D INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")  # fmt: skip


_BITS = "c=$(busybox awk '/CapEff/ {print $2}' /proc/1/status); [ $((0x$c >> %d & 1)) = 1 ]"
CASES = [
    way_out("SEC-10", "SEC-10", "mount -t tmpfs none /tmp", Privileged=True),  # void where the machine itself lacks capabilities
    way_out("SEC-11", "SEC-11", "[ -S /var/run/docker.sock ]", Binds=["{socket}:/var/run/docker.sock"]),
    way_out("SEC-12/pid", "SEC-12", "[ $(ls -d /proc/[0-9]* | busybox wc -l) -gt 20 ]", PidMode="host"),
    way_out("SEC-12/net", "SEC-12", "ip link show up0", NetworkMode="host"),
    way_out("SEC-13", "SEC-13", "[ -w /host/hostname ]", Binds=["/etc:/host"]),
    way_out("SEC-14", "SEC-14", "busybox grep -q 'Seccomp:.*0' /proc/1/status", SecurityOpt=["seccomp=unconfined"]),
    way_out("SEC-15", "SEC-15", _BITS % 19, CapAdd=["SYS_PTRACE"]),
    Case("PUB-08", "web", _policy, closed, _open, _close, diagnose=audited, teardown=_no_policy),
]
