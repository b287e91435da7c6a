"""Start failures and ends of containers, in images built for the purpose."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.faults.case import Case, Step
from bench.faults.lab import IMAGE, Lab, wait
from dockyard.errors import DockyardError

GOOD = b"#!/bin/sh\nexec sleep 1000\n"
STAYS = 0.4  # seconds after which a container that runs is taken as started


def app(lab: Lab) -> bool:
    """Start the application as the case has it now; True if it still runs a moment later."""
    lab.remove("app")
    spec = dict(lab.vars.get("app") or {"Entrypoint": ["/app/start"], "Image": "app:latest"})
    command = spec.pop("Cmd", [])
    try:
        lab.run("app", command, **spec)
        time.sleep(STAYS)
    except DockyardError as error:
        lab.vars["error"] = str(error)
        return False
    return bool(lab.inspect("app")["State"]["Running"])


def image(files: dict[str, tuple[bytes, int]]) -> Callable[[Lab], None]:
    def step(lab: Lab) -> None:
        lab.load_image("app:latest", files)

    return step


def spec(**wanted: Any) -> Callable[[Lab], None]:
    def step(lab: Lab) -> None:
        lab.vars["app"] = {"Image": IMAGE, **wanted}

    return step


good_image = image({"app/start": (GOOD, 0o755)})
good_spec = spec(Entrypoint=["sleep", "1000"])


def entry(label: str, content: bytes, mode: int = 0o755, rule: str = "") -> Case:
    """A case whose image has this entry file."""
    return Case(rule or label, "app", good_image, app, image({"app/start": (content, mode)}), good_image, name=label)


def settings(label: str, rule: str = "", also: tuple[str, ...] = (), **broken: Any) -> Case:
    """A case whose container is created with these settings."""
    return Case(rule or label, "app", good_spec, app, spec(**broken), good_spec, name=label, also=frozenset(also))


def elf(machine: int | None = None, loader: bytes = b"") -> bytes:
    """busybox with another e_machine, or a minimal ELF with this PT_INTERP."""
    if machine is not None:
        data = bytearray(Path("/bin/busybox").read_bytes())
        data[18:20] = machine.to_bytes(2, "little")
        return bytes(data)
    import struct

    header = b"\x7fELF\x02\x01\x01" + b"\0" * 9
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400000, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    text = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 4096, 4096, 4096)
    where = 64 + 2 * 56
    interp = struct.pack("<IIQQQQQQ", 3, 4, where, 0x400000 + where, 0x400000 + where, len(loader), len(loader), 1)
    return (header + text + interp + loader).ljust(4096, b"\0")


def _directory_for_file(lab: Lab) -> None:
    missing = lab.root / "missing.conf"
    missing.mkdir(exist_ok=True)
    lab.vars["app"] = {"Image": IMAGE, "Entrypoint": ["sleep", "1000"],
                       "HostConfig": {"Binds": [f"{missing}:/etc/passwd"]}}  # fmt: skip


def _noexec(lab: Lab) -> None:
    where = lab.root / "noexec"
    where.mkdir(exist_ok=True)
    lab.sh(f"mountpoint -q {where} || mount -t tmpfs -o noexec none {where}; printf '#!/bin/sh\\nexec sleep 1000\\n' > "
           f"{where}/start; chmod 755 {where}/start")  # fmt: skip
    lab.vars["app"] = {"Image": IMAGE, "Entrypoint": ["/opt/start"], "HostConfig": {"Binds": [f"{where}:/opt"]}}


# Ends ----------------------------------------------------------------------------------------------------------------


def stops(lab: Lab) -> bool:
    """Does the application end on SIGTERM?"""
    if not app(lab):
        return False
    lab.client.request("POST", "/containers/app/stop", {"t": 1})
    return bool(lab.inspect("app")["State"]["ExitCode"] != 137)


def stays(lab: Lab) -> bool:
    """Does the application still run after a few restarts' time?"""
    if not app(lab):
        time.sleep(2.5)
        return False
    return bool(lab.inspect("app")["RestartCount"] == 0)


def survives(seconds: float) -> Callable[[Lab], bool]:
    def probe(lab: Lab) -> bool:
        app(lab)
        time.sleep(seconds)
        return bool(lab.inspect("app")["State"]["Running"])

    return probe


def healthy(lab: Lab) -> bool:
    app(lab)
    wait(lambda: lab.inspect("app")["State"].get("Health", {}).get("Status") in ("healthy", "unhealthy"), 10)
    return bool(lab.inspect("app")["State"]["Health"]["Status"] == "healthy")


def _health(*test: str, **more: Any) -> dict[str, Any]:
    timing = {"Interval": 200_000_000, "Timeout": 1_000_000_000, "Retries": 2, **more}
    return {"Entrypoint": ["sleep", "1000"], "Healthcheck": {"Test": list(test), **timing}}


def no_zombies(lab: Lab) -> bool:
    app(lab)
    time.sleep(1)
    output = lab.exec("app", "ps") and lab.vars["output"]
    return str(output).count("[sleep]") < 3


_ORPHANS = "for i in 1 2 3 4 5 6 7 8; do (sleep 0.2 &) ; done; exec sleep 1000"
_TRAP = "trap 'exit 0' TERM; while true; do sleep 0.1; done"
_CRASH = {"Entrypoint": ["sh", "-c", "echo cannot read /etc/app.conf; exit 3"]}
_ALWAYS = {"HostConfig": {"RestartPolicy": {"Name": "always"}}}
_SEGV = {"Entrypoint": ["sh", "-c", "sh -c 'kill -SEGV $$'; exit $?"]}


def _compose(lab: Lab, service: str, needs: str, command: str, **more: Any) -> None:
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": service,
              "com.docker.compose.depends_on": needs and f"{needs}:service_started:false"}  # fmt: skip
    lab.run(service, ["sh", "-c", command], Labels=labels, HostConfig={"NetworkMode": "shop", **more})


def shop(lab: Lab) -> None:
    """db <- api <- gateway; each fails when what it needs does not answer."""
    lab.network("shop")
    _compose(lab, "db", "", "exec httpd -f -p 5432 -h /")
    restart = {"RestartPolicy": {"Name": "always"}}
    wait_for = "sleep 0.3; while timeout 2 wget -q -O /dev/null http://{0}/etc/passwd; do sleep 0.1; done; echo {0} down; exit 1"
    _compose(lab, "api", "db", "httpd -p 80 -h /; " + wait_for.format("db:5432"), **restart)
    _compose(lab, "gateway", "api", wait_for.format("api:80"), **restart)
    time.sleep(1)


def shop_works(lab: Lab) -> bool:
    """Do all three run on, without a restart?"""

    def restarts() -> list[int]:
        return [int(lab.inspect(name)["RestartCount"]) for name in ("db", "api", "gateway")]

    before = restarts()
    time.sleep(4)  # longer than one of them takes to fail
    states = [lab.inspect(name)["State"] for name in ("db", "api", "gateway")]
    return all(state["Running"] and not state["Restarting"] for state in states) and restarts() == before


def _db(action: str) -> Callable[[Lab], None]:
    def step(lab: Lab) -> None:
        lab.client.request("POST", f"/containers/db/{action}", {"t": 0} if action == "stop" else None)
        if action == "start":
            time.sleep(4)  # those above it wait for their restart policies
        else:  # until those that need it have failed so often that they are in a restart loop
            wait(lambda: all(lab.inspect(name)["RestartCount"] >= 3 for name in ("api", "gateway")), 20)

    return step


def _database(warm_up: int, *, waited_for: bool) -> Step:
    """A database that listens after so many seconds, and a client that is started when it listens, or at once."""

    def listens(lab: Lab) -> bool:
        return lab.exec("db", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:5432/etc/passwd")

    def step(lab: Lab) -> None:
        for name in ("db", "api"):
            lab.remove(name)
        _compose(lab, "db", "", f"sleep {warm_up}; exec httpd -f -p 5432 -h /")
        if waited_for:
            wait(lambda: listens(lab), 10)
        _compose(lab, "api", "db", "wget -q -O /dev/null http://db:5432/etc/passwd || exit 1; exec sleep 1000")
        wait(lambda: listens(lab), 10)

    return step


def _with_network(lab: Lab) -> None:
    lab.network("shop")
    _database(0, waited_for=True)(lab)


CASES = [
    Case("CMP-01", "api", _with_network, lambda lab: bool(lab.inspect("api")["State"]["Running"]),
         _database(3, waited_for=False), _database(0, waited_for=True)),
    entry("CTR-02/mode", GOOD, 0o644, "CTR-02"),
    Case("CTR-02", "app", good_spec, app, spec(Entrypoint=["/app"]), good_spec, name="CTR-02/directory"),
    settings("CTR-03", Entrypoint=["nothere", "--serve"]),
    settings("CTR-03/in-shell", "CTR-03", Entrypoint=["sh", "-c", "nothere --serve"]),
    entry("CTR-04", GOOD.replace(b"\n", b"\r\n")),
    entry("CTR-05", GOOD.replace(b"/bin/sh", b"/bin/bash")),
    entry("CTR-06", elf(loader=b"/lib64/ld-linux-x86-64.so.2\0")),
    entry("CTR-08", elf(machine=183)),
    entry("CTR-09/no-shebang", b"exec sleep 1000\n", rule="CTR-09"),
    entry("CTR-09/bom", b"\xef\xbb\xbf" + GOOD, rule="CTR-09"),
    entry("CTR-09/empty", b"", rule="CTR-09"),
    Case("CTR-10", "app", good_spec, app, _noexec, good_spec),
    Case("CTR-20", "app", good_spec, app, _directory_for_file, good_spec),
    settings("CTR-22", Entrypoint=["-p", "80:80"]),
    settings("BLD-08", Entrypoint=["sleep", "1000"], User="ghost"),
    Case("CTR-11", "app", spec(Entrypoint=["sh", "-c", _TRAP]), stops, good_spec, spec(Entrypoint=["sh", "-c", _TRAP])),
    Case("CTR-13", "app", good_spec, survives(0.5), spec(**_SEGV), good_spec),
    Case("CTR-14", "app", good_spec, app, spec(Entrypoint=["sh"]), good_spec),
    Case(
        "CTR-16",
        "app",
        spec(Entrypoint=["sleep", "1000"], **_ALWAYS),
        stays,
        spec(**_CRASH, **_ALWAYS),
        spec(Entrypoint=["sleep", "1000"], **_ALWAYS),
    ),
    Case(
        "CTR-17",
        "app",
        spec(**_health("CMD", "true")),
        healthy,
        spec(**_health("CMD", "curl", "-f", "http://localhost")),
        spec(**_health("CMD", "true")),
        name="CTR-17/no-tool",
    ),
    Case(
        "CTR-17",
        "app",
        spec(**_health("CMD", "true")),
        healthy,
        spec(**_health("CMD-SHELL", "wget -q -O- http://127.0.0.1:81/ || exit 1")),
        spec(**_health("CMD", "true")),
        name="CTR-17/wrong-port",
    ),
    Case(
        "CTR-18",
        "app",
        spec(**_health("CMD", "true")),
        healthy,
        spec(**_health("CMD", "sleep", "5", Timeout=300_000_000)),
        spec(**_health("CMD", "true")),
    ),
    Case(
        "CTR-24",
        "app",
        spec(Entrypoint=["sh", "-c", _ORPHANS], HostConfig={"Init": True}),
        no_zombies,
        spec(Entrypoint=["sh", "-c", _ORPHANS]),
        spec(Entrypoint=["sh", "-c", _ORPHANS], HostConfig={"Init": True}),
    ),
    Case("CMP-10", "db", shop, shop_works, _db("stop"), _db("start"), tries=10),
    Case(
        "INS-16",
        "app",
        good_spec,
        app,
        spec(Entrypoint=["sleep", "1000"], HostConfig={"DeviceRequests": [{"Driver": "nvidia", "Count": -1}]}),
        good_spec,
    ),
]
