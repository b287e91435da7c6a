"""Limits, privileges, disks."""

from __future__ import annotations

import time
from typing import Any

from bench.faults.case import Case
from bench.faults.cases_start import app, good_spec, spec
from bench.faults.lab import IMAGE, Lab


def finishes(lab: Lab) -> bool:
    """Run the application to its end; True if it ends with 0."""
    app(lab)
    try:
        return lab.wait_exit("app", 8) == 0
    except TimeoutError:
        return False


def job(script: str, **more: Any) -> dict[str, Any]:
    return {"Entrypoint": ["sh", "-c", script], **more}


Settings = dict[str, Any]


def task(label: str, script: str, good: Settings, bad: Settings, rule: str = "") -> Case:
    """A job that ends with 0 under ``good`` host settings and fails under ``bad``."""
    works, fails = spec(**job(script, HostConfig=good)), spec(**job(script, HostConfig=bad))
    return Case(rule or label, "app", works, finishes, fails, works, name=label)


def forks(lab: Lab) -> bool:
    """Can another process be made in the running application?"""
    return lab.exec("app", "true")


def crowd(**host_config: Any) -> Any:
    """An application of seven processes."""

    def step(lab: Lab) -> None:
        lab.remove("app")
        lab.run("app", ["sh", "-c", "for i in 1 2 3 4 5 6; do sleep 1000 & done; wait"], HostConfig=host_config)
        time.sleep(0.5)

    return step


_GROW = "yes 0123456789 | head -c 60000000 | { read x; x=$(cat); echo ${#x}; }"


_TTL = '[ "$(sysctl -n net.ipv4.ip_default_ttl)" = 70 ] || sysctl -w net.ipv4.ip_default_ttl=70'


def _owned(uid: int) -> Any:
    def step(lab: Lab) -> None:
        where = lab.root / "data-dir"
        where.mkdir(exist_ok=True)
        where.chmod(0o700)
        lab.sh(f"chown {uid}:{uid} {where}")
        write = ["sh", "-c", "touch /data/x && echo fine"]
        binds = {"Binds": [f"{where}:/data"]}
        lab.vars["app"] = {"Image": IMAGE, "Entrypoint": write, "User": "1000:1000", "HostConfig": binds}

    return step


def _hidden(lab: Lab) -> None:
    where = lab.root / "empty"
    where.mkdir(exist_ok=True)
    lab.vars["app"] = {"Image": "app:latest", "Entrypoint": ["sh", "/app/start"],
                       "HostConfig": {"Binds": [f"{where}:/app"]}}  # fmt: skip


def _with_app(lab: Lab) -> None:
    lab.load_image("app:latest", {"app/start": (b"#!/bin/sh\nexec sleep 1000\n", 0o755)})
    lab.vars["app"] = {"Image": "app:latest", "Entrypoint": ["sh", "/app/start"]}


def _log_of(size: int) -> Any:
    """A log of that size: a hole, and lines at its end, where readers of the last lines begin."""
    line = '{"log":"so it goes\\n","stream":"stdout","time":"2026-01-01T00:00:00.000000000Z"}'

    def step(lab: Lab) -> None:
        path = lab.inspect("app")["LogPath"]
        lab.sh(f"truncate -s {size} {path}")
        if size:
            lab.sh(f"echo >> {path}; for i in $(seq 100); do echo '{line}'; done >> {path}")

    return step


def _small_log(lab: Lab) -> bool:
    if not lab.vars.get("started"):
        lab.vars["started"] = app(lab)
    return int(lab.sh(f"stat -c %s {lab.inspect('app')['LogPath']}")) < 1 << 30


def _volumes(lab: Lab) -> None:
    for index in range(25):
        lab.run(f"v{index}", start=False, Volumes={"/x": {}})
        lab.client.request("DELETE", f"/containers/v{index}")


def _few_volumes(lab: Lab) -> bool:
    return len(lab.client.request("GET", "/volumes")["Volumes"] or []) < 20


def _prune(lab: Lab) -> None:
    lab.client.request("POST", "/volumes/prune")


def _bad_volume(lab: Lab) -> None:
    options = {"type": "ext4", "device": "/dev/nothere", "o": ""}
    lab.client.request("POST", "/volumes/create", body={"Name": "bad", "DriverOpts": options})
    lab.vars["app"] = {"Image": IMAGE, "Entrypoint": ["sleep", "1000"], "HostConfig": {"Binds": ["bad:/x"]}}


CASES = [
    task("RES-01", _GROW, {}, {"Memory": 20 << 20, "MemorySwap": 20 << 20}),
    Case("RES-04", "app", crowd(), forks, crowd(PidsLimit=7), crowd()),
    task(
        "RES-05",
        "exec 3</dev/null 4</dev/null 5</dev/null 6</dev/null; cat /etc/passwd",
        {},
        {"Ulimits": [{"Name": "nofile", "Soft": 6, "Hard": 6}]},
    ),
    task("SEC-04/ping", "ping -c 1 127.0.0.1", {}, {"CapDrop": ["NET_RAW"]}, "SEC-04"),
    task("SEC-04/chown", "touch /tmp/x && chown 1000 /tmp/x", {}, {"CapDrop": ["CHOWN"]}, "SEC-04"),
    task(
        "SEC-04/mount",
        "mount -t tmpfs none /tmp",
        {"CapAdd": ["SYS_ADMIN"], "SecurityOpt": ["apparmor=unconfined"]},
        {},
        "SEC-04",
    ),
    task("SEC-09", _TTL, {"Sysctls": {"net.ipv4.ip_default_ttl": "70"}}, {}),
    Case("SEC-01", "app", _owned(1000), finishes, _owned(0), _owned(1000)),
    task("STO-08", "touch /var-file && echo fine", {}, {"ReadonlyRootfs": True}),
    Case("STO-14", "app", _with_app, app, _hidden, _with_app),
    Case("STO-03", "app", good_spec, _small_log, _log_of(2 << 30), _log_of(0)),
    Case("STO-05", "volumes", good_spec, _few_volumes, _volumes, _prune),
    Case("STO-15", "app", good_spec, app, _bad_volume, good_spec),
]
