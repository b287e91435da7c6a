"""Requests that are refused. The user has a message, and asks: ``dockyard explain MESSAGE``."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import Any

import msgspec

from bench.faults.case import Case, Step, nothing
from bench.faults.lab import IMAGE, Lab
from dockyard.doctor.finding import Finding, Report
from dockyard.errors import DockyardError


def explained(lab: Lab) -> Report:
    """What ``dockyard explain`` shows of this host for the message that the probe got."""
    command = ["nsenter", "-t", str(lab.holder), "-m", "-n", sys.executable, "-m", "dockyard.cli", "explain", "-H",
               f"unix://{lab.socket}", "--json", str(lab.vars["error"])]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=30, check=False, stdin=subprocess.DEVNULL)
    rows = json.loads(done.stdout or "[]")
    return Report([msgspec.convert(row["here"], Finding) for row in rows if "here" in row], [])


def asks(method: str, path: str, words: str, body: Any = None) -> Any:
    """A probe: is this request granted? What it makes or removes is put back. ``words`` is what the user typed."""

    def probe(lab: Lab) -> bool:
        document = body(lab) if callable(body) else body
        lab.vars["request"] = (method, path, document)
        try:
            lab.client.request(method, path, body=document)
        except DockyardError as error:
            lab.vars["error"] = f"{words}\n{error.message}"
            return False
        return True

    return probe


def then(probe: Any, back: Step) -> Any:
    """The probe, and ``back`` when it went well."""

    def step(lab: Lab) -> bool:
        good = bool(probe(lab))
        if good:
            back(lab)
        return good

    return step


def gone(name: str) -> Step:
    def step(lab: Lab) -> None:
        lab.remove(name)

    return step


def stopped(name: str, image: str = IMAGE, **host_config: Any) -> Step:
    def step(lab: Lab) -> None:
        lab.run(name, start=False, Image=image, HostConfig=host_config)

    return step


def network(name: str, subnet: str = "") -> Step:
    def step(lab: Lab) -> None:
        lab.network(name, **({"IPAM": {"Config": [{"Subnet": subnet}]}} if subnet else {}))

    return step


def no_network(name: str) -> Step:
    def step(lab: Lab) -> None:
        with contextlib.suppress(DockyardError):
            lab.client.request("DELETE", f"/networks/{name}")

    return step


def _image(lab: Lab) -> None:
    lab.load_image("app:latest", {"etc/app": (os.urandom(16), 0o644)})


def _volume(lab: Lab) -> None:
    lab.client.request("POST", "/volumes/create", body={"Name": "data"})


def _created(body: dict[str, Any]) -> Step:
    def step(lab: Lab) -> None:
        lab.vars["body"] = {"Image": IMAGE, "Cmd": ["true"], **body}

    return step


def _create(words: str) -> Any:
    """A container called app with the body that the case has now."""
    return then(asks("POST", "/containers/create?name=app", words, lambda lab: lab.vars["body"]), gone("app"))


def _owner(lab: Lab) -> None:
    lab.run("owner")
    _created({})(lab)


def refused(label: str, rule: str, name: str, probe: Any, inject: Step, undo: Step, setup: Step = nothing, **more: Any) -> Case:
    return Case(rule, name, setup, probe, inject, undo, name=label, diagnose=explained, **more)


_NAME = "Shop/App:1.0"


def _tagged(lab: Lab) -> bool:
    name = lab.vars.get("name", "shop/app:1.0")
    repository, _, tag = name.rpartition(":")
    try:
        lab.client.request("POST", f"/images/{IMAGE}/tag", {"repo": repository, "tag": tag})
    except DockyardError as error:
        lab.vars["error"] = f"docker build -t {name}\n{error.message}"
        return False
    lab.client.request("DELETE", f"/images/{name}")
    return True


def _called(name: str) -> Step:
    def step(lab: Lab) -> None:
        lab.vars["name"] = name

    return step


def _terminal(flag: str) -> Step:
    def step(lab: Lab) -> None:
        lab.vars["flag"] = flag

    return step


def _docker_run(lab: Lab) -> bool:
    """``docker run`` as cron calls it: standard input is no terminal."""
    words = ["docker", "-H", f"unix://{lab.socket}", "run", "--rm", lab.vars.get("flag", "-i"), IMAGE, "true"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)
    lab.vars["error"] = done.stderr.strip()
    return done.returncode == 0


_SHARED = {"HostConfig": {"NetworkMode": "container:owner"}}
_BOUND = {"ExposedPorts": {"80/tcp": {}}, "HostConfig": {"NetworkMode": "container:owner",
          "PortBindings": {"80/tcp": [{"HostPort": "18080"}]}}}  # fmt: skip
_SUBNET = {"Name": "second", "IPAM": {"Config": [{"Subnet": "10.66.0.0/24"}]}}
CASES = [
    refused("CTR-19", "CTR-19", "app", _create("docker run --name app"), stopped("app"), gone("app"), _created({})),
    refused("IMG-12", "IMG-12", "app:latest", then(asks("DELETE", "/images/app:latest", "docker rmi app:latest"), _image),
            stopped("old", "app:latest"), gone("old"), _image),
    refused("STO-16", "STO-16", "data", then(asks("DELETE", "/volumes/data", "docker volume rm data"), _volume),
            stopped("old", Binds=["data:/data"]), gone("old"), _volume),
    refused("NET-07", "NET-07", "first", then(asks("POST", "/networks/create", "docker network create --subnet 10.66.0.0/24 second",
            _SUBNET), no_network("second")), network("first", "10.66.0.0/16"), no_network("first")),
    refused("NET-18/connected", "NET-18", "shop", then(asks("DELETE", "/networks/shop", "docker network rm shop"), network("shop")),
            lambda lab: _nothing(lab.run("client", HostConfig={"NetworkMode": "shop"})), gone("client"), network("shop")),
    refused("IMG-06", "IMG-06", _NAME, _tagged, _called(_NAME), _called("shop/app:1.0")),
    refused("IMG-06/empty variable", "IMG-06", "shop/:1.0", _tagged, _called("shop/:1.0"), _called("shop/app:1.0")),
    refused("CTR-01", "CTR-01", "request", _create("docker run --network container:owner --hostname web"),
            _created({**_SHARED, "Hostname": "web"}), _created(_SHARED), _owner),
    refused("PUB-13", "PUB-13", "request", _create("docker run --network container:owner -p 18080:80"),
            _created(_BOUND), _created(_SHARED), _owner),
    refused("RES-11", "RES-11", "request", _create("docker run --memory 1m"), _created({"HostConfig": {"Memory": 1 << 20}}),
            _created({}), _created({})),
    refused("RES-11/cpus", "RES-11", "request", _create("docker run --cpus 1000"), _created({"HostConfig": {"NanoCpus": 10**12}}),
            _created({}), _created({}), engines=("dockerd",)),
    refused("CTR-21", "CTR-21", "standard input", _docker_run, _terminal("-it"), _terminal("-i")),
]  # fmt: skip


def _nothing(_: object) -> None:
    """A step gives nothing back."""
