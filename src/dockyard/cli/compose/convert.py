"""``convert docker run ...``: the line that starts one container, as a service of a Compose file. Pure but for printing."""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Sequence
from typing import Any

from dockyard.cli import flags
from dockyard.cli.compose.render import dump
from dockyard.cli.compose.session import Session
from dockyard.cli.flags import Options, UsageError

Json = dict[str, Any]
OPTIONS_END_AT_FIRST_WORD = ("convert",)
FLAGS = {"convert": "    --name NAME  Name of the service"}

_LISTS = {
    "add-host": "extra_hosts", "cap-add": "cap_add", "cap-drop": "cap_drop", "device": "devices",
    "device-cgroup-rule": "device_cgroup_rules", "dns": "dns", "dns-option": "dns_opt", "dns-search": "dns_search",
    "env": "environment", "env-file": "env_file", "expose": "expose", "group-add": "group_add", "label": "labels",
    "label-file": "label_file", "link": "external_links", "publish": "ports", "security-opt": "security_opt",
    "sysctl": "sysctls", "tmpfs": "tmpfs", "volume": "volumes", "volumes-from": "volumes_from",
    "annotation": "annotations",
}  # fmt: skip
_TEXTS = {
    "cgroup-parent": "cgroup_parent", "cgroupns": "cgroup", "cpus": "cpus", "cpuset-cpus": "cpuset",
    "domainname": "domainname", "hostname": "hostname", "ipc": "ipc", "isolation": "isolation", "ip": "ip", "ip6": "ip6",
    "mac-address": "mac_address", "memory": "mem_limit", "memory-reservation": "mem_reservation",
    "memory-swap": "memswap_limit", "name": "container_name", "pid": "pid", "platform": "platform",
    "pull": "pull_policy", "restart": "restart", "runtime": "runtime", "shm-size": "shm_size",
    "stop-signal": "stop_signal", "user": "user", "userns": "userns_mode", "uts": "uts", "workdir": "working_dir",
}  # fmt: skip
_NUMBERS = {
    "cpu-period": "cpu_period", "cpu-quota": "cpu_quota", "cpu-shares": "cpu_shares",
    "memory-swappiness": "mem_swappiness", "oom-score-adj": "oom_score_adj", "pids-limit": "pids_limit",
}  # fmt: skip
_SWITCHES = {
    "init": "init", "interactive": "stdin_open", "oom-kill-disable": "oom_kill_disable", "privileged": "privileged",
    "read-only": "read_only", "tty": "tty",
}  # fmt: skip
_HEALTH = {
    "health-interval": "interval", "health-retries": "retries", "health-start-period": "start_period",
    "health-start-interval": "start_interval", "health-timeout": "timeout",
}  # fmt: skip
_OTHER_TEXTS = ("entrypoint", "health-cmd", "log-driver", "stop-timeout", "cidfile", "detach-keys", "gpus")
_OTHER_LISTS = ("log-opt", "network", "net", "mount", "network-alias", "net-alias", "ulimit", "storage-opt", "attach")
_OTHER_SWITCHES = ("detach", "rm", "no-healthcheck", "publish-all", "sig-proxy", "quiet", "disable-content-trust")
_SHORT = {
    "add-host": "", "attach": "a", "cpu-shares": "c", "detach": "d", "env": "e", "hostname": "h", "interactive": "i",
    "label": "l", "memory": "m", "publish": "p", "publish-all": "P", "quiet": "q", "tty": "t", "user": "u",
    "volume": "v", "workdir": "w",
}  # fmt: skip


def _flags() -> list[flags.Flag]:
    made = [flags.Flag(name, _SHORT.get(name, ""), "VALUE", True, "") for name in (*_LISTS, *_OTHER_LISTS)]
    made += [flags.Flag(name, _SHORT.get(name, ""), "VALUE", False, "") for name in (*_TEXTS, *_HEALTH, *_OTHER_TEXTS)]
    made += [flags.Flag(name, _SHORT.get(name, ""), "N", False, "") for name in _NUMBERS]
    return made + [flags.Flag(name, _SHORT.get(name, ""), "", False, "") for name in (*_SWITCHES, *_OTHER_SWITCHES)]


def convert(session: Session, options: Options) -> int:
    sys.stdout.write(dump(file_of(options.words, options.text("name"))))
    return 0


def file_of(words: Sequence[str], name: str = "") -> Json:
    """The Compose file that starts what ``docker run ...`` starts. Raises UsageError."""
    line = list(words)
    if line[:1] in (["docker"], ["dockyard"], ["podman"]):
        line = line[1:]
    if line[:1] == ["container"]:
        line = line[1:]
    if line[:1] not in (["run"], ["create"]):
        raise UsageError("convert takes a docker run line: dockyard compose convert docker run -d -p 80:80 nginx")
    given = flags.parse(_flags(), line[1:], interspersed=False)
    if not given.words:
        raise UsageError("the docker run line names no image")
    image, *command = given.words
    service: Json = {"image": image} | ({"command": command} if command else {})
    service |= {key: given.all(flag) for flag, key in _LISTS.items() if given.given(flag)}
    service |= {key: given.text(flag) for flag, key in _TEXTS.items() if given.given(flag)}
    service |= {key: given.number(flag) for flag, key in _NUMBERS.items() if given.given(flag)}
    service |= {key: given.on(flag) for flag, key in _SWITCHES.items() if given.given(flag)}
    service |= _special(given)
    if "volumes_from" in service:
        service["volumes_from"] = [f"container:{item}" for item in service["volumes_from"]]
    called = (
        name or given.text("name") or re.sub(r"[^a-z0-9_-]", "", posixpath.basename(image.split("@")[0].split(":")[0]))
    )
    tree: Json = {"services": {called or "app": service}}
    networks = _networks(given, service)
    if networks:
        tree["networks"] = {item: {"external": True} for item in networks}
    volumes = [item.split(":")[0] for item in given.all("volume") if ":" in item and item[0] not in "/.~"]
    if volumes:
        # docker run makes and uses volumes by their plain names; without `name` the project's would go before.
        tree["volumes"] = {item: {"name": item} for item in dict.fromkeys(volumes)}
    return tree


def _special(given: Options) -> Json:
    made: Json = {}
    if given.given("entrypoint"):
        made["entrypoint"] = [given.text("entrypoint")]
    if given.given("stop-timeout"):
        made["stop_grace_period"] = f"{given.text('stop-timeout')}s"
    if given.given("gpus"):
        made["gpus"] = given.text("gpus") if given.text("gpus") == "all" else [{"count": given.text("gpus")}]
    health: Json = {key: given.text(flag) for flag, key in _HEALTH.items() if given.given(flag)}
    if given.given("health-cmd"):
        health = {"test": ["CMD-SHELL", given.text("health-cmd")], **health}
    if given.on("no-healthcheck"):
        health = {"disable": True}
    if health:
        made["healthcheck"] = health
    if given.given("log-driver") or given.given("log-opt"):
        made["logging"] = {"driver": given.text("log-driver", "json-file")}
        if given.given("log-opt"):
            made["logging"]["options"] = dict(item.partition("=")[::2] for item in given.all("log-opt"))
    if given.given("storage-opt"):
        made["storage_opt"] = dict(item.partition("=")[::2] for item in given.all("storage-opt"))
    limits = {}
    for item in given.all("ulimit"):
        kind, _, span = item.partition("=")
        soft, colon, hard = span.partition(":")
        limits[kind] = {"soft": int(soft), "hard": int(hard)} if colon else int(soft)
    return made | ({"ulimits": limits} if limits else {})


def _networks(given: Options, service: Json) -> list[str]:
    """Networks that must exist; puts them into the service. Modes are no networks."""
    names = [*given.all("network"), *given.all("net")]
    modes = [name for name in names if name in {"host", "none", "bridge", "default"} or name.startswith("container:")]
    plain = [dict(part.partition("=")[::2] for part in f"name={name}".split(",")).get("name", name) for name in names
             if name not in modes]  # fmt: skip
    address = {
        key: service.pop(flag) for flag, key in (("ip", "ipv4_address"), ("ip6", "ipv6_address")) if flag in service
    }
    if modes:
        service["network_mode"] = modes[-1] if modes[-1] != "default" else "bridge"
    if plain:
        aliases = [*given.all("network-alias"), *given.all("net-alias")]
        terms: Json = address | ({"aliases": aliases} if aliases else {})
        service["networks"] = dict.fromkeys(plain, terms or None)
    elif not modes:
        service["network_mode"] = "bridge"
    return plain
