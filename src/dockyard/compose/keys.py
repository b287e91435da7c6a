"""Which keys a Compose file may have and of which shape: the Compose Specification as one table, and its check.

A shape is a word (``str``, ``num``, ``bool``, ``strlist``, ``pairs``, ``any``), a mapping of keys to shapes, or a tuple
of alternatives. ``x-`` keys are allowed everywhere. Checked against the public schema in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dockyard.compose.document import nearest, place
from dockyard.compose.errors import UNKNOWN_KEY, WRONG_TYPE

Shape = str | Sequence["Shape"] | Mapping[str, "Shape"]
"""``[shape]`` is a list of it, ``(a, b)`` either; ``{"*": shape}`` a mapping with free keys."""

_TEXT = {
    "str": "a string", "num": "a number", "bool": "true or false", "strlist": "a string or a list",
    "pairs": "a mapping or a list of NAME=VALUE", "any": "anything", "null": "empty",
}  # fmt: skip

_COMMAND: Shape = ("null", "str", ["str"])
_HOOK: dict[str, Shape] = {
    "command": _COMMAND, "user": "str", "privileged": "bool", "working_dir": "str", "environment": "pairs",
}  # fmt: skip
_INIT: dict[str, Shape] = {**_HOOK, "image": "str", "per_replica": "bool"}
_REQUEST = {
    "capabilities": ["str"],
    "count": ("str", "num"),
    "device_ids": ["str"],
    "driver": "str",
    "options": "pairs",
}
_ULIMITS: Shape = {"*": ("num", "str", {"hard": ("num", "str"), "soft": ("num", "str")})}
_FILE_REF: Shape = [("str", {"source": "str", "target": "str", "uid": "str", "gid": "str", "mode": ("num", "str")})]
_BLKIO: Shape = [{"path": "str", "rate": ("num", "str")}]

BUILD: Shape = {
    "context": "str", "dockerfile": "str", "dockerfile_inline": "str", "entitlements": ["str"], "args": "pairs",
    "ssh": "pairs", "labels": "pairs", "cache_from": ["str"], "cache_to": ["str"], "no_cache": "bool",
    "no_cache_filter": "strlist", "additional_contexts": "pairs", "network": "str", "provenance": ("str", "bool"),
    "sbom": ("str", "bool"), "pull": "bool", "target": "str", "shm_size": ("num", "str"), "extra_hosts": "pairs",
    "isolation": "str", "privileged": "bool", "secrets": _FILE_REF, "tags": ["str"], "ulimits": _ULIMITS,
    "platforms": ["str"],
}  # fmt: skip

DEPLOY: Shape = {
    "mode": "str", "endpoint_mode": "str", "replicas": ("num", "str"), "labels": "pairs",
    "rollback_config": "any", "update_config": {
        "parallelism": ("num", "str"), "delay": "str", "failure_action": "str", "monitor": "str",
        "max_failure_ratio": ("num", "str"), "order": "str",
    },
    "resources": {
        "limits": {"cpus": ("num", "str"), "memory": "str", "pids": ("num", "str")},
        "reservations": {"cpus": ("num", "str"), "memory": "str", "generic_resources": "any", "devices": [_REQUEST]},
    },
    "restart_policy": {"condition": "str", "delay": "str", "max_attempts": ("num", "str"), "window": "str"},
    "placement": "any",
}  # fmt: skip

HEALTHCHECK: Shape = {
    "disable": "bool", "interval": "str", "retries": ("num", "str"), "test": ("str", ["str"]), "timeout": "str",
    "start_period": "str", "start_interval": "str",
}  # fmt: skip

SERVICE: dict[str, Shape] = {
    "annotations": "pairs", "attach": "bool", "blkio_config": {
        "device_read_bps": _BLKIO, "device_read_iops": _BLKIO, "device_write_bps": _BLKIO, "device_write_iops": _BLKIO,
        "weight": ("num", "str"), "weight_device": [{"path": "str", "weight": ("num", "str")}],
    },
    "build": ("str", BUILD), "cap_add": ["str"], "cap_drop": ["str"], "cgroup": "str", "cgroup_parent": "str",
    "command": _COMMAND, "configs": _FILE_REF, "container_name": "str", "cpu_count": ("num", "str"),
    "cpu_percent": ("num", "str"), "cpu_period": ("num", "str"), "cpu_quota": ("num", "str"),
    "cpu_rt_period": ("num", "str"), "cpu_rt_runtime": ("num", "str"), "cpu_shares": ("num", "str"),
    "cpus": ("num", "str"), "cpuset": "str", "credential_spec": "any",
    "depends_on": (["str"], {"*": {"condition": "str", "restart": "bool", "required": "bool"}}),
    "deploy": ("null", DEPLOY),
    "develop": ("null", {"watch": [{
        "path": "str", "action": "str", "target": "str", "ignore": "strlist", "include": "strlist", "exec": _HOOK,
        "initial_sync": "bool",
    }]}),
    "device_cgroup_rules": ["str"], "devices": [("str", {"source": "str", "target": "str", "permissions": "str"})],
    "dns": "strlist", "dns_opt": ["str"], "dns_search": "strlist", "domainname": "str", "entrypoint": _COMMAND,
    "env_file": ("str", [("str", {"path": "str", "format": "str", "required": "bool"})]), "environment": "pairs",
    "expose": [("str", "num")], "extends": ("str", {"service": "str", "file": "str"}), "external_links": ["str"],
    "extra_hosts": "pairs", "gpus": ("str", [_REQUEST]), "group_add": [("str", "num")], "healthcheck": HEALTHCHECK,
    "hostname": "str", "image": "str", "init": "bool", "ipc": "str", "isolation": "str", "label_file": "strlist",
    "labels": "pairs", "links": ["str"], "logging": {"driver": "str", "options": {"*": "any"}}, "mac_address": "str",
    "mem_limit": ("num", "str"), "mem_reservation": ("num", "str"), "mem_swappiness": ("num", "str"),
    "memswap_limit": ("num", "str"), "models": "any", "network_mode": "str",
    "networks": (["str"], {"*": ("null", {
        "aliases": ["str"], "interface_name": "str", "ipv4_address": "str", "ipv6_address": "str",
        "link_local_ips": ["str"], "mac_address": "str", "driver_opts": {"*": "any"}, "priority": "num",
        "gw_priority": "num",
    })}),
    "oom_kill_disable": "bool", "oom_score_adj": ("num", "str"), "pid": ("null", "str"), "pids_limit": ("num", "str"),
    "platform": "str", "ports": [("num", "str", {
        "name": "str", "mode": "str", "host_ip": "str", "target": ("num", "str"), "published": ("num", "str"),
        "protocol": "str", "app_protocol": "str",
    })],
    "post_start": [_HOOK], "pre_start": [_INIT], "pre_stop": [_HOOK], "privileged": "bool", "profiles": ["str"],
    "provider": {"type": "str", "options": {"*": "any"}}, "pull_policy": "str", "pull_refresh_after": "str",
    "read_only": "bool", "restart": "str", "runtime": "str", "scale": ("num", "str"), "secrets": _FILE_REF,
    "security_opt": ["str"], "shm_size": ("num", "str"), "stdin_open": "bool", "stop_grace_period": "str",
    "stop_signal": "str", "storage_opt": "any", "sysctls": "pairs", "tmpfs": "strlist", "tty": "bool",
    "ulimits": _ULIMITS, "use_api_socket": "bool", "user": "str", "userns_mode": "str", "uts": "str",
    "volumes": [("str", {
        "type": "str", "source": "str", "target": "str", "read_only": "bool", "consistency": "str",
        "bind": {"propagation": "str", "create_host_path": "bool", "recursive": "str", "selinux": "str"},
        "volume": {"labels": "pairs", "nocopy": "bool", "subpath": "str"}, "image": {"subpath": "str"},
        "tmpfs": {"size": ("num", "str"), "mode": ("num", "str")},
    })],
    "volumes_from": ["str"], "working_dir": "str",
}  # fmt: skip

_EXTERNAL: Shape = ("bool", {"name": "str"})
NETWORK: Shape = {
    "name": "str", "driver": "str", "driver_opts": {"*": ("str", "num")}, "ipam": {
        "driver": "str", "options": {"*": "str"}, "config": [{
            "subnet": "str", "ip_range": "str", "gateway": "str", "aux_addresses": {"*": "str"},
        }],
    },
    "external": _EXTERNAL, "internal": "bool", "enable_ipv4": "bool", "enable_ipv6": "bool", "attachable": "bool",
    "labels": "pairs",
}  # fmt: skip
VOLUME: Shape = {
    "name": "str", "driver": "str", "driver_opts": {"*": ("str", "num")}, "external": _EXTERNAL, "labels": "pairs",
}  # fmt: skip
FILE_SOURCE: Shape = {
    "name": "str", "environment": "str", "file": "str", "content": "str", "external": _EXTERNAL, "labels": "pairs",
    "driver": "str", "driver_opts": {"*": ("str", "num")}, "template_driver": "str",
}  # fmt: skip
ROOT: Shape = {
    "version": ("str", "num"), "name": "str",
    "include": [("str", {"path": "strlist", "env_file": "strlist", "project_directory": "str"})],
    "services": ("null", {"*": SERVICE}), "models": "any", "networks": ("null", {"*": ("null", NETWORK)}),
    "volumes": ("null", {"*": ("null", VOLUME)}), "secrets": ("null", {"*": FILE_SOURCE}),
    "configs": ("null", {"*": FILE_SOURCE}),
}  # fmt: skip


def check(tree: Any, shape: Shape, file: str, path: str = "") -> None:
    """Raises InvalidParameter at the first key or value that does not fit: file, line, path, nearest valid key."""
    _check(tree, shape, file, path, None, None)


def _check(value: Any, shape: Shape, file: str, path: str, holder: Any, key: str | None) -> None:
    if getattr(value, "tag", "") == "reset":
        return
    value = value.value if hasattr(value, "value") and hasattr(value, "tag") else value
    chosen = _choose(value, shape)
    if chosen is None:
        found = {dict: "a mapping", list: "a list", type(None): "empty", bool: "true or false"}.get(
            _kind(value), repr(value)
        )
        raise WRONG_TYPE(where=place(file, holder, key), path=path or "top level", expected=_names(shape), found=found)
    if isinstance(chosen, Mapping):
        _check_map(value, chosen, file, path)
    elif isinstance(chosen, list):
        for index, item in enumerate(value):
            _check(item, chosen[0], file, f"{path}[{index}]", value, None)


def _check_map(value: Any, shape: Mapping[str, Shape], file: str, path: str) -> None:
    for name, item in value.items():
        inner = shape.get(name) or shape.get("*")
        if inner is None:
            if name.startswith("x-"):
                continue
            words = nearest(name, shape)
            raise UNKNOWN_KEY(where=place(file, value, name), path=path or "top level", key=name, nearest=words)
        _check(item, inner, file, f"{path}.{name}" if path else name, value, name)


def _kind(value: Any) -> type:
    for kind in (dict, list, bool):
        if isinstance(value, kind):
            return kind
    return type(value)


def _choose(value: Any, shape: Shape) -> Shape | None:
    """The alternative that ``value`` fits from outside; None if there is none."""
    if isinstance(shape, tuple):
        return next((fit for option in shape if (fit := _choose(value, option)) is not None), None)
    if isinstance(shape, Mapping):
        return shape if isinstance(value, dict) else None
    if isinstance(shape, list):
        return shape if isinstance(value, list) else None
    assert isinstance(shape, str)
    return shape if _FITS[shape](value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.lower() in _BOOLEANS)


def _is_strlist(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, (str, int)) for item in value))


def _is_pairs(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_scalar_or_list(item) for item in value.values())
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _scalar_or_list(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, list)) or hasattr(value, "tag")


def _names(shape: Shape) -> str:
    if isinstance(shape, tuple):
        return " or ".join(dict.fromkeys(_names(option) for option in shape if option != "null"))
    if isinstance(shape, Mapping):
        return "a mapping"
    return _TEXT[shape] if isinstance(shape, str) else "a list"


_BOOLEANS = frozenset({"true", "false", "yes", "no", "y", "n", "on", "off"})
_FITS: dict[str, Callable[[Any], bool]] = {
    "any": lambda value: True,
    "null": lambda value: value is None,
    # YAML reads `user: 1000` as it likes; a lone scalar is taken as the text it was.
    "str": lambda value: isinstance(value, (str, int, float)),
    "num": _is_number,
    "bool": _is_bool,
    "strlist": _is_strlist,
    "pairs": _is_pairs,
}
