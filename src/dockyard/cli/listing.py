"""Rows of lists: what ``ps``, ``images``, ``volume ls`` and ``network ls`` show of the engine's documents. Pure.

A row is a dictionary with the fields that ``--format`` knows (docker/cli cli/command/formatter).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dockyard.cli.output import ago, epoch, joined, moment, short_id, shortened, size

Json = dict[str, Any]
COMMAND_LENGTH, MOUNT_LENGTH = 20, 15
NONE = "<none>"
UNKNOWN = "N/A"


def container_row(document: Json, *, whole: bool) -> Json:
    """``whole``: nothing is cut (``--no-trunc``)."""
    labels = document.get("Labels") or {}
    command = document.get("Command") or ""
    return {
        "ID": document["Id"] if whole else short_id(document["Id"]),
        "Names": ",".join(_names(document.get("Names") or [], whole=whole)),
        "Image": _image(document, whole=whole),
        "Command": json.dumps(command if whole else shortened(command, COMMAND_LENGTH), ensure_ascii=False),
        "CreatedAt": moment(document.get("Created", 0)),
        "RunningFor": ago(document.get("Created", 0)),
        "Ports": displayable_ports(document.get("Ports") or []),
        "Status": document.get("Status", ""),
        "State": document.get("State", ""),
        "Size": _size(document),
        "Labels": joined(labels),
        "Label": lambda name: labels.get(name, ""),
        "Mounts": ",".join(_mount(mount, whole=whole) for mount in document.get("Mounts") or []),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in document.get("Mounts") or [])),
        "Networks": ",".join(sorted((document.get("NetworkSettings") or {}).get("Networks") or {})),
        "Platform": (document.get("ImageManifestDescriptor") or {}).get("platform"),
    }


def _names(names: Sequence[str], *, whole: bool) -> list[str]:
    """Without the slash; names given by links (``/a/b``) only where nothing is cut."""
    bare = [name.removeprefix("/") for name in names]
    return bare if whole else [name for name in bare if "/" not in name]


def _image(document: Json, *, whole: bool) -> str:
    name = str(document.get("Image") or "<no image>")
    if whole:
        return name
    short = short_id(document.get("ImageID") or "")
    if short and short_id(name) == short:
        return short
    head, at, _ = name.partition("@")
    return head if at and ":" in head.rpartition("/")[2] else name


def _size(document: Json) -> str:
    written = size(document.get("SizeRw") or 0)
    virtual = document.get("SizeRootFs") or 0
    return f"{written} (virtual {size(virtual)})" if virtual else written


def _mount(mount: Json, *, whole: bool) -> str:
    name = str(mount.get("Name") or mount.get("Source") or "")
    return name if whole else shortened(name, MOUNT_LENGTH)


def displayable_ports(ports: Iterable[Json]) -> str:
    """``0.0.0.0:80->80/tcp, 90-92/udp``: neighbours with the same number on both sides are one range."""
    groups: dict[str, list[int]] = {}
    done: list[str] = []
    mapped: list[str] = []
    for port in sorted(ports, key=_port_order):
        private, public, address = port["PrivatePort"], port.get("PublicPort", 0), port.get("IP", "")
        kind = port["Type"]
        if address and public != private:
            mapped.append(f"{host_port(address, str(public))}->{private}/{kind}")
            continue
        key = f"{address}/{kind}"
        if key in groups and private == groups[key][1] + 1:
            groups[key][1] = private
            continue
        if key in groups:
            done.append(_group(key, groups[key]))
        groups[key] = [private, private]
    return ", ".join(done + [_group(key, span) for key, span in groups.items()] + mapped)


def _port_order(port: Json) -> tuple[Any, ...]:
    return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"]


def _group(key: str, span: Sequence[int]) -> str:
    address, _, kind = key.rpartition("/")
    numbers = str(span[0]) if span[0] == span[1] else f"{span[0]}-{span[1]}"
    return f"{host_port(address, numbers)}->{numbers}/{kind}" if address else f"{numbers}/{kind}"


def host_port(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def image_rows(document: Json, *, whole: bool, digests: bool) -> list[Json]:
    """One row a tag (and digest, with ``digests``); a nameless image has one row of ``<none>``."""
    tags: dict[str, list[str]] = {}
    for name in document.get("RepoTags") or []:
        repository, _, tag = name.rpartition(":")
        if repository and repository != NONE:
            tags.setdefault(repository, []).append(tag)
    sums: dict[str, list[str]] = {}
    for name in document.get("RepoDigests") or []:
        repository, _, digest = name.partition("@")
        if repository != NONE:
            sums.setdefault(repository, []).append(digest)
    named: list[tuple[str, str, str]] = []
    for repository, of in tags.items():
        for tag in of:
            own = sums.get(repository, []) if digests else []
            named += [(repository, tag, digest) for digest in own] or [(repository, tag, NONE)]
    for repository, of in sums.items():
        if repository not in tags:
            named += [(repository, NONE, digest) for digest in (of if digests else of[:1])]
    return [_image_row(document, *row, whole=whole) for row in named or [(NONE, NONE, NONE)]]


def _image_row(document: Json, repository: str, tag: str, digest: str, *, whole: bool) -> Json:
    def known(number: int | None, text: Callable[[int], str]) -> str:
        return UNKNOWN if number is None or number < 0 else text(number)

    return {
        "ID": document["Id"] if whole else short_id(document["Id"]),
        "Repository": repository, "Tag": tag, "Digest": digest,
        "CreatedSince": _since(document.get("Created", 0)), "CreatedAt": moment(document.get("Created", 0)),
        "Size": size(document.get("Size", 0)), "VirtualSize": size(document.get("Size", 0)),
        "SharedSize": known(document.get("SharedSize"), size), "UniqueSize": _unique(document),
        "Containers": known(document.get("Containers"), str),
    }  # fmt: skip


def _since(created: float) -> str:
    return ago(created) if created > 0 else UNKNOWN


def _unique(document: Json) -> str:
    shared = document.get("SharedSize", -1)
    return UNKNOWN if shared < 0 else size(document.get("Size", 0) - shared)


def history_row(document: Json, *, whole: bool, human: bool) -> Json:
    made = " ".join((document.get("CreatedBy") or "").replace("\t", " ").splitlines())
    created = document.get("Created", 0)
    date = _go_date(created)
    return {
        "ID": document["Id"] if whole else short_id(document["Id"]),
        "CreatedAt": date, "CreatedSince": _since(created) if human else date,
        "CreatedBy": made if whole else shortened(made, 45),
        "Size": size(document.get("Size", 0)) if human else str(document.get("Size", 0)),
        "Comment": document.get("Comment") or "",
    }  # fmt: skip


def _go_date(created: float) -> str:
    import time

    text = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(created))
    return text[:-5] + ("Z" if text.endswith("+0000") else text[-5:-2] + ":" + text[-2:])


def volume_row(document: Json) -> Json:
    labels, usage = document.get("Labels") or {}, document.get("UsageData") or {}
    return {
        "Name": document["Name"], "Driver": document.get("Driver", ""), "Scope": document.get("Scope", ""),
        "Mountpoint": document.get("Mountpoint", ""), "Labels": joined(labels),
        "Label": lambda name: labels.get(name, ""),
        "Links": str(usage["RefCount"]) if usage else UNKNOWN, "Size": size(usage["Size"]) if usage else UNKNOWN,
        "Status": UNKNOWN, "Availability": UNKNOWN, "Group": UNKNOWN,
    }  # fmt: skip


def network_row(document: Json, *, whole: bool) -> Json:
    labels = document.get("Labels") or {}
    created = document.get("Created", "")
    return {
        "ID": document["Id"] if whole else short_id(document["Id"]),
        "Name": document["Name"], "Driver": document.get("Driver", ""), "Scope": document.get("Scope", ""),
        "IPv4": _yes(document.get("EnableIPv4", True)), "IPv6": _yes(document.get("EnableIPv6")),
        "Internal": _yes(document.get("Internal")), "Labels": joined(labels),
        "Label": lambda name: labels.get(name, ""), "CreatedAt": moment(epoch(created)),
    }  # fmt: skip


def _yes(value: object) -> str:
    return "true" if value else "false"
