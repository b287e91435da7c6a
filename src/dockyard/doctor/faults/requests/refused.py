"""Requests that the engine refused: what the user was told (`Facts.said`), and who on this host is in the way.

Such a refusal leaves no trace on the host, so these rules look only when a message is given (`dockyard explain MESSAGE`).
The message says what was asked; the facts say why it cannot be, and the finding cites those.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from dockyard.doctor.finding import Confidence, Evidence, Finding, Fix, Object
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import Container, Network, View

TITLES = {
    "CTR-01": "the engine refuses options that exclude each other",
    "CTR-19": "an older container keeps the name",
    "CTR-21": "a terminal was asked for where there is none",
    "IMG-06": "the name of an image is not one",
    "IMG-12": "a container still refers to the image",
    "NET-07": "the subnet overlaps one that the engine has",
    "PUB-13": "ports are published by a container that uses another's network",
    "RES-11": "a limit that this host cannot give",
    "STO-16": "a container still refers to the volume",
}
MESSAGES: dict[str, tuple[str, ...]] = {
    "CTR-01": (r"conflicting options: ", r"can't be used with links", r"invalid restart policy"),
    "CTR-19": (r"container name \S+ is already in use",),
    "CTR-21": (r"cannot attach stdin to a TTY-enabled container", r"the input device is not a TTY"),
    "IMG-06": (r"invalid reference format", r"repository name .*must be lowercase"),
    "IMG-12": (r"(being )?us(ed|ing) (by|its).*(container|image)", r"image is being used by"),
    "NET-07": (r"pool overlaps with other one",),
    "PUB-13": (r"port publishing and the container type network mode",),
    "RES-11": (r"minimum memory limit allowed", r"range of CPUs is from", r"requested CPUs are not available"),
    "STO-16": (r"volume is in use",),
}
# What excludes what, by the engine's words: what to do instead.
EXCLUDED = (
    (r"host type networking can't be used with links", "links belong to the default bridge; use names on a network of your own"),
    (r"hostname and the network mode", "leave out --hostname: the host's or the other container's is used"),
    (r"mac-address and the network mode", "leave out --mac-address"),
    (r"custom host-to-IP mapping and the network mode", "give --add-host to the container whose network it uses"),
    (r"dns and the network mode", "give --dns to the container whose network it uses"),
    (r"--restart and --rm", "leave out one: a container that is removed at its end cannot be started again"),
    (r"--attach and --detach", "leave out one"),
    (r"user-defined and non-user-defined", "connect it to one kind of network"),
    (r"invalid restart policy", "no, always, unless-stopped, or on-failure[:N]"),
)  # fmt: skip


def _match(view: View, pattern: str) -> re.Match[str] | None:
    return re.search(pattern, view.facts.said, re.IGNORECASE)


def _container(view: View, key: str) -> Container | None:
    return next((item for item in view.containers if key and (item.id.startswith(key) or item.name == key)), None)


def _status(container: Container) -> Evidence:
    state = container.state
    return Evidence("api", f"State of {container.name}", f"{state.get('Status')}, exit {container.exit_code}")


def _found(rule: str, where: Object, symptom: str, seen: list[Evidence], fix: Fix, **more: Any) -> Finding:
    return finding(rule, TITLES[rule], where, symptom, seen, fix=fix, **more)


def name_taken(view: View) -> Iterator[Finding]:
    match = _match(view, r'container name "?/?([^"\s]+?)"? is already in use by (?:container )?"?([0-9a-f]{12,64})?')
    holder = _container(view, match[2] or match[1]) if match else None
    if match is None or holder is None:
        return
    name = holder.name
    rename = Fix(
        "rename the old one (or remove it, if nobody needs what it holds)",
        [f"docker rename {name} {name}-old"],
        [f"docker rename {name}-old {name}"],
        machine=True,
    )
    running = Fix(f"{name} runs: choose another name, or stop and remove it first")
    yield _found("CTR-19", holder.object, f"no other container can be called {name}", [_status(holder)],
                 running if holder.running else rename, affects=[holder.id], verify=f"docker ps -a --filter name=^{name}$")  # fmt: skip


def image_used(view: View) -> Iterator[Finding]:
    match = _match(view, r"unable to (?:remove|delete) .*container ([0-9a-f]{12})")
    holder = _container(view, match[1]) if match else None
    if holder is None:
        return
    image = str(holder.document.get("Image", ""))
    users = [item for item in view.containers if item.document.get("Image") == image]
    seen = [Evidence("api", f"Image of {item.name}", image[:19]) for item in users[:5]]
    stopped = all(not item.running for item in users)
    names = " ".join(item.name for item in users)
    text = "remove the stopped containers first, if nobody needs what they hold" if stopped else "stop and remove its containers first"
    yield _found("IMG-12", Object("image", str(holder.config.get("Image", ""))), f"{names} was made from it", seen,
                 Fix(text, [f"docker rm {names}"] if stopped else [], risk="what they wrote outside of volumes is lost"),
                 affects=[item.id for item in users])  # fmt: skip


def volume_used(view: View) -> Iterator[Finding]:
    match = _match(view, r"(?:remove (\S+): )?volume is in use(?: - \[([^\]]*)\])?")
    if match is None:
        return
    ids = [key.strip() for key in (match[2] or "").split(",") if key.strip()]
    users = [(item, str(mount.get("Name"))) for item in view.containers for mount in item.mounts
             if mount.get("Name") and (mount["Name"] == match[1] or any(item.id.startswith(key[:12]) for key in ids))]  # fmt: skip
    if not users:
        return
    name = match[1] or users[0][1]
    seen = [Evidence("api", f"volumes of {item.name}", name) for item, volume in users if volume == name]
    names = " ".join(item.name for item, volume in users if volume == name)
    yield _found("STO-16", Object("volume", name), f"{names} refers to it, running or not", seen,
                 Fix("remove the containers first; the volume stays until then", [f"docker rm {names}"]),
                 affects=[item.id for item, _ in users])  # fmt: skip


_SUBNET = re.compile(r"\b\d+\.\d+\.\d+\.\d+/\d+\b")


def overlap(view: View) -> Iterator[Finding]:
    if _match(view, MESSAGES["NET-07"][0]) is None:
        return
    wanted = [ipaddress.ip_network(text, strict=False) for text in _SUBNET.findall(view.facts.said)]
    for network in view.networks:
        for subnet in network.subnets:
            if any(ipaddress.ip_network(subnet).overlaps(net) for net in wanted):
                yield _overlapping(view, network, subnet)
                return


def _overlapping(view: View, network: Network, subnet: str) -> Finding:
    used = len(network.document.get("Containers") or {})
    taken = [ipaddress.ip_network(each) for item in view.networks for each in item.subnets]
    pool = ipaddress.ip_network("10.213.0.0/16").subnets(new_prefix=24)
    free = next((str(net) for net in pool if not any(net.overlaps(other) for other in taken)), "")
    seen = [Evidence("api", f"GET /networks/{network.name}", f"{used} endpoints in {subnet}", "another subnet")]
    return _found("NET-07", network.object, f"{network.name} has {subnet}", seen,
                  Fix(f"choose a subnet that is free, {free} for one, or remove {network.name} if it is not used"),
                  affects=[network.id])  # fmt: skip


def corrected(name: str) -> str:
    """The name as the grammar of references wants it, as near as can be (distribution/reference)."""
    text = re.sub(r"\s+", "", name).strip(":/@")
    path, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        path, tag = text, ""
    path = re.sub(r"/+", "/", re.sub(r"[^a-z0-9._/:-]", "-", path.lower())).strip("/")
    return path + (f":{re.sub(r'[^A-Za-z0-9_.-]', '-', tag)}" if tag else "")


_NAMED = re.compile(r'"([^"]+)"|(?:pull|run|push|tag|build -t|fromImage=) ?([^\s"]+)')


def bad_name(view: View) -> Iterator[Finding]:
    if not any(_match(view, pattern) for pattern in MESSAGES["IMG-06"]):
        return
    names = [one or two for one, two in _NAMED.findall(view.facts.said)]
    name = next((item for item in names if corrected(item) != item), "")
    if not name:
        return
    empty = name.endswith((":", "/")) or name.startswith((":", "/")) or "//" in name
    yield _found("IMG-06", Object("image", name), f"{name!r} cannot be the name of an image",
                 [Evidence("probe", "the engine's answer to this name", name, corrected(name))],
                 Fix(f"write {corrected(name)}" + ("; a variable in it seems to be empty" if empty else "")))  # fmt: skip


def excluded(view: View) -> Iterator[Finding]:
    if _match(view, MESSAGES["PUB-13"][0]):
        yield _found("PUB-13", Object("engine", "request"), "the container was not made", [_told(view, MESSAGES["PUB-13"][0])],
                     Fix("publish the ports where the shared network namespace was made: on the other container"))  # fmt: skip
        return
    for pattern, instead in EXCLUDED:
        if _match(view, pattern):
            yield _found("CTR-01", Object("engine", "request"), "the container was not made (docker run ends with 125)",
                         [_told(view, pattern)], Fix(instead))  # fmt: skip
            return


def _told(view: View, pattern: str) -> Evidence:
    match = _match(view, pattern)
    return Evidence("probe", "the engine's answer to this request", match[0] if match else "")


def impossible_limit(view: View) -> Iterator[Finding]:
    match = _match(view, "|".join(MESSAGES["RES-11"]))
    if match is None:
        return
    info = view.facts.engine.info
    memory = "memory" in match[0].lower()
    seen = [_told(view, "|".join(MESSAGES["RES-11"]))]
    key, text = ("MemTotal", "give 6 MB or more, and less than the host has") if memory else ("NCPU", "ask for what the host has")
    seen.append(Evidence("api", f"GET /info {key}", str(info.get(key))))
    yield _found("RES-11", Object("engine", "request"), "the container was not made", seen, Fix(text))


def no_terminal(view: View) -> Iterator[Finding]:
    if any(_match(view, pattern) for pattern in MESSAGES["CTR-21"]) and view.facts.caller.terminal is False:
        yield _found("CTR-21", Object("host", "standard input"), "docker run -t (or exec -t) fails in this shell",
                     [Evidence("process", "standard input of the caller", "not a terminal", "a terminal")],
                     Fix("leave out -t; -i alone feeds it from a pipe"), confidence=Confidence.LIKELY)  # fmt: skip


_EXPLAIN = {
    "CTR-01": "Nothing was made: docker run ends with 125. The engine names the two options.",
    "CTR-19": "Names are unique among all containers, stopped ones too.",
    "CTR-21": "Cron jobs and CI have no terminal; -t asks for one.",
    "IMG-06": "Repositories are in small letters; an empty variable leaves a stray colon or slash.",
    "IMG-12": "An image stays while a container made from it is there, stopped or not.",
    "NET-07": "Networks of one engine have subnets of their own.",
    "PUB-13": "--network container:NAME has no network of its own to publish from.",
    "RES-11": "Limits are checked against the kernel and the host before the container is made.",
    "STO-16": "A volume stays while a container refers to it, running or not.",
}
_DECIDES = {
    "CTR-01": "the two options that the message names",
    "CTR-19": "docker ps -a --filter name=NAME",
    "CTR-21": "test -t 0",
    "IMG-06": "the name letter by letter",
    "IMG-12": "docker ps -a --filter ancestor=IMAGE",
    "NET-07": "docker network inspect: IPAM.Config of each",
    "PUB-13": "HostConfig.NetworkMode",
    "RES-11": "docker info: CPUs, Total Memory",
    "STO-16": "docker ps -a --filter volume=NAME",
}
_DETECT = {"CTR-01": excluded, "CTR-19": name_taken, "CTR-21": no_terminal, "IMG-06": bad_name, "IMG-12": image_used,
           "NET-07": overlap, "PUB-13": None, "RES-11": impossible_limit, "STO-16": volume_used}  # fmt: skip
_NEEDS = {"CTR-19": ("containers",), "IMG-12": ("containers",), "STO-16": ("containers",), "NET-07": ("networks",)}
RULES = tuple(
    Rule(key, TITLES[key], _EXPLAIN[key], _DETECT[key], _NEEDS.get(key, ()), messages=MESSAGES[key], decides=_DECIDES[key])
    for key in _EXPLAIN
)
