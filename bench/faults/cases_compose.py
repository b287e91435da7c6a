"""Project files that do not work, put to the house's own compose command against the engine of the lab."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

from bench.faults.case import Case, Step
from bench.faults.cases_refused import explained, no_network
from bench.faults.lab import IMAGE, Lab
from dockyard.errors import DockyardError

APP = f"services:\n  web:\n    image: {IMAGE}\n    command: sleep 1000\n"
OUTER = APP + "    networks: [outer]\nnetworks:\n  outer:\n    external: true\n"


def compose(lab: Lab, *words: str) -> tuple[int, str]:
    """Exit code and words of the command."""
    command = ["nsenter", "-t", str(lab.holder), "-m", "-n", sys.executable, "-m", "dockyard.cli", "compose", "-p", "shop", "-f",
               str(lab.root / "compose.yaml"), *words]  # fmt: skip
    environ = {**os.environ, "DOCKER_HOST": f"unix://{lab.socket}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def file(text: str) -> Step:
    def step(lab: Lab) -> None:
        (lab.root / "compose.yaml").write_text(text)

    return step


def comes_up(lab: Lab) -> bool:
    """Is the project started without a complaint?"""
    lab.vars["compose"] = ["up", "-d"]
    code, said = compose(lab, "up", "-d")
    lab.vars["error"] = said
    return code == 0 and not any(word in said for word in ("orphan", "not set", "not created"))


def comes_and_goes(lab: Lab) -> bool:
    """As `comes_up`, and down again: a container that is kept would refer to the network of before by its id."""
    up = comes_up(lab)
    compose(lab, "down")
    lab.vars["compose"] = ["up", "-d"]
    return up


def good(lab: Lab) -> bool:
    """Is the file read without a complaint?"""
    lab.vars["compose"] = ["config"]
    code, said = compose(lab, "config")
    lab.vars["error"] = said
    return code == 0 and "not set" not in said


def _outer(lab: Lab) -> None:
    with contextlib.suppress(DockyardError):
        lab.network("outer")


def _without_outer(lab: Lab) -> None:
    compose(lab, "down")
    no_network("outer")(lab)


def _with_old(lab: Lab) -> None:
    """A service that was there yesterday."""
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": "old", "com.docker.compose.oneoff": "False",
              "com.docker.compose.container-number": "1"}  # fmt: skip
    lab.run("shop-old-1", Labels=labels)


def _without_old(lab: Lab) -> None:
    lab.remove("shop-old-1")


def _made_by_hand(lab: Lab) -> None:
    compose(lab, "down", "-v")
    with contextlib.suppress(DockyardError):
        lab.client.request("DELETE", "/volumes/shop_data")
    lab.client.request("POST", "/volumes/create", body={"Name": "shop_data"})


def _made_by_compose(lab: Lab) -> None:
    compose(lab, "down", "-v")
    with contextlib.suppress(DockyardError):
        lab.client.request("DELETE", "/volumes/shop_data")


def _outer_file(lab: Lab) -> None:
    file(OUTER)(lab)
    _outer(lab)


def case(rule: str, name: str, bad: str, probe: object = good) -> Case:
    return Case(rule, name, file(APP), probe, file(bad), file(APP), diagnose=explained)  # type: ignore[arg-type]


CASES = [
    case("CMP-03", "nett", APP + "    networks: [nett]\nnetworks:\n  net: {}\n"),
    case("CMP-04", "TAG", APP.replace(IMAGE, "lab:${TAG}")),
    case("CMP-08", "depends_on", APP + f"    depends_on: [db]\n  db:\n    image: {IMAGE}\n    depends_on: [web]\n"),
    Case("CMP-05", "outer", _outer_file, comes_and_goes, _without_outer, _outer, diagnose=explained),
    Case("CMP-06", "shop-old-1", file(APP), comes_up, _with_old, _without_old, diagnose=explained),
    Case("CMP-07", "shop_data", file(APP + "    volumes: [data:/data]\nvolumes:\n  data: {}\n"), comes_up, _made_by_hand,
         _made_by_compose, diagnose=explained),
]  # fmt: skip
