"""Cascades: one fault, and what fails because of it. The report must name the one root and fold the rest below it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.faults.case import Case, Step
from bench.faults.cases_start import GOOD, image, shop, shop_works
from bench.faults.lab import Lab, wait

_DB = {"com.docker.compose.project": "shop", "com.docker.compose.service": "db"}
SETTLE = 40.0  # seconds for those that need it to fail so often that they are in a restart loop


def after(inject: Step) -> Step:
    """Inject, then give the consequences time to show."""

    def step(lab: Lab) -> None:
        inject(lab)
        wait(lambda: all(lab.inspect(name)["RestartCount"] >= 3 for name in ("api", "gateway")), SETTLE)

    return step


def database(**spec: Any) -> Step:
    """The database again, with these settings; whether it starts is what the case is about."""

    def step(lab: Lab) -> None:
        lab.remove("db")
        host = {"NetworkMode": "shop", **spec.pop("HostConfig", {})}
        lab.run("db", start=False, Labels=_DB, HostConfig=host, **{"Cmd": ["httpd", "-f", "-p", "5432", "-h", "/"], **spec})
        lab.tries_to_start("db")

    return step


def again(lab: Lab) -> None:
    """The database as it was, and those that need it at once: their policy would wait longer each time."""
    database()(lab)
    for name in ("api", "gateway"):
        lab.client.request("POST", f"/containers/{name}/restart", {"t": 0})
    time.sleep(1)  # they look for the one below after 0.3 s and end if it is not there


def _with_entry(content: bytes, mode: int = 0o755) -> Step:
    make = image({"app/start": (content, mode)})

    def step(lab: Lab) -> None:
        make(lab)
        database(Image="app:latest", Cmd=["/app/start"])(lab)

    return step


def bridge(state: str) -> Step:
    def step(lab: Lab) -> None:
        lab.sh(f"ip link set {_bridge(lab)} {state}")

    return step


def _bridge(lab: Lab) -> str:
    return f"br-{lab.client.request('GET', '/networks/shop')['Id'][:12]}"


def filtered(action: str) -> Step:
    def step(lab: Lab) -> None:
        lab.sh(f"iptables {action} FORWARD -i {_bridge(lab)} -o {_bridge(lab)} -j DROP")

    return step


def then_again(undo: Callable[[Lab], None]) -> Step:
    def step(lab: Lab) -> None:
        undo(lab)
        again(lab)

    return step


def cascade(label: str, rule: str, name: str, inject: Step, undo: Step, *folds: str) -> Case:
    return Case(rule, name, shop, shop_works, after(inject), undo, name=f"cascade/{label}", folds=frozenset(folds), tries=10)


_LOOPS = ("CTR-16",)
CASES = [
    cascade("database stopped", "CMP-10", "db", lambda lab: lab.client.request("POST", "/containers/db/stop", {"t": 0}), again, *_LOOPS),
    cascade("line ends", "CTR-04", "db", _with_entry(GOOD.replace(b"\n", b"\r\n")), again, "CMP-10", *_LOOPS),
    cascade("no x bit", "CTR-02", "db", _with_entry(GOOD, 0o644), again, "CMP-10", *_LOOPS),
    cascade("no such user", "BLD-08", "db", database(User="ghost"), again, "CMP-10", *_LOOPS),
    cascade("no such program", "CTR-03", "db", database(Cmd=["postgres"]), again, "CMP-10", *_LOOPS),
    cascade("bridge down", "NET-10", "shop", bridge("down"), then_again(bridge("up")), *_LOOPS),
    cascade("bridge filtered", "NET-14", "shop", filtered("-I"), then_again(filtered("-D")), *_LOOPS),
]  # fmt: skip
