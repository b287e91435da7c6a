"""The config hash: by it Docker Compose and Dockyard tell whether a container still is what the file says.

It is SHA-256 of the JSON that Go writes of compose-go's structures (docker/compose ``pkg/compose/hash.go``,
compose-go ``types``), so the order of keys, what is left out when empty and the form of durations, sizes and small
floats must be theirs to the byte. ``build``, ``pull_policy``, ``scale``, ``deploy.replicas``, ``depends_on`` and
``profiles`` do not count: a change of these makes no container anew. Pure.

The table below names, in Go's order, each key and how its value is written.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

from dockyard.compose import canonical

Json = dict[str, Any]
Writer = Callable[[Any], Any]
_ABSENT = object()
NANOSECOND = 1_000_000_000


def service_hash(service: Mapping[str, Any]) -> str:
    """``service`` is canonical, its references to other services already resolved to container IDs (Compose v5).

    Raises ValueError with the way to a value that is none of its kind.
    """
    return _service_hash(service, {None: None, True: None, False: False})


def accepted_hashes(service: Mapping[str, Any]) -> frozenset[str]:
    """The hashes that today's and earlier Composes of the v2 line give to the same service.

    They differ in a bind's ``create_host_path``: up to compose-go 2.6 true was written and false left out; up to 2.10
    an absent one was written as false. Up to 2.6 the terms of a network stood in another order.
    """
    before_2_11 = _service_hash(service, {None: False, True: None, False: False})
    before_2_7 = _service_hash(service, {None: None, True: True, False: None}, _SERVICE | {"networks": _OLD_NETWORKS})
    return frozenset({service_hash(service), before_2_11, before_2_7})


def _service_hash(
    service: Mapping[str, Any], host_path: Mapping[bool | None, bool | None], table: Mapping[str, Writer] | None = None
) -> str:
    """``host_path`` maps what the file says of ``create_host_path`` to what is written of it (None: nothing)."""
    counted = {key: value for key, value in service.items() if key not in _NOT_COUNTED}
    if isinstance(counted.get("deploy"), Mapping):
        counted["deploy"] = {key: value for key, value in counted["deploy"].items() if key != "replicas"}
    counted["volumes"] = [
        {**mount, "bind": {**mount["bind"], "create_host_path": host_path[_told(mount["bind"])]}}
        if isinstance(mount.get("bind"), Mapping)
        else mount
        for mount in service.get("volumes") or []
    ]
    return _digest(_struct(table or _SERVICE)(counted))


def _told(bind: Mapping[str, Any]) -> bool | None:
    told = bind.get("create_host_path")
    return None if told is None else canonical.boolean(told)


def network_hash(network: Mapping[str, Any]) -> str:
    return _digest(_struct(_NETWORK)(network))


def volume_hash(volume: Mapping[str, Any]) -> str:
    return _digest(_struct(_VOLUME)({"driver": "local", **volume}))


def go_duration(seconds: float) -> str:
    """``1m30s``, ``500ms``, ``1.5s``: Go's time.Duration.String."""
    left = round(seconds * NANOSECOND)
    if left == 0:
        return "0s"
    if left < NANOSECOND:
        for unit, word in ((1_000_000, "ms"), (1_000, "µs"), (1, "ns")):
            if left >= unit:
                return f"{_decimal(left, unit)}{word}"
    minutes, left = divmod(left, 60 * NANOSECOND)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(left, NANOSECOND)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = str(rest).zfill(len(str(unit)) - 1).rstrip("0")
    return f"{whole}.{digits}" if rest else str(whole)


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for plain, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):  # Go escapes these for HTML
        text = text.replace(plain, escaped)
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return hashlib.sha256(text.encode()).hexdigest()


def _struct(fields: Mapping[str, Writer]) -> Writer:
    def write(value: Mapping[str, Any]) -> Json:
        made = {}
        for key, writer in fields.items():
            try:
                written = writer(value.get(key))
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as wrong:
                raise ValueError(f"{key}: {wrong}") from None
            if written is not _ABSENT:
                made[key] = written
        return made

    return write


def _if_some(writer: Writer) -> Writer:
    """``omitempty``: nothing for nil, zero, the empty string, list and map."""

    def write(value: Any) -> Any:
        if value is None:
            return _ABSENT
        written = writer(value)
        return _ABSENT if written in ("", 0, False) or written == [] or written == {} else written

    return write


def _pointer(writer: Writer) -> Writer:
    """``omitempty`` on a pointer: only nil is left out."""
    return lambda value: _ABSENT if value is None else writer(value)


def _text(value: Any) -> str:
    return canonical.text(value)


def _single(value: Any) -> float | int:
    """A float32 in the fewest digits that give it back."""
    if not math.isfinite(float(value)):
        raise ValueError(f"{value} is no number")
    exact = struct.unpack("f", struct.pack("f", float(value)))[0]
    for digits in range(1, 10):
        short = float(f"{exact:.{digits}g}")
        if struct.unpack("f", struct.pack("f", short))[0] == exact:
            return int(short) if short.is_integer() else short
    return float(exact)


def _bytes(value: Any) -> str:
    """Sizes are quoted; zero counts as empty."""
    number = canonical.size(value)
    return str(number) if number else ""


def _duration(value: Any) -> str:
    return go_duration(canonical.duration(value))


def _some_duration(value: Any) -> str:
    text = _duration(value)
    return "" if text == "0s" else text


def _mapping(value: Any, absent: Any = "") -> Json:
    found = canonical.pairs(value)
    return {key: absent if found[key] is None else found[key] for key in sorted(found)}


def _list(writer: Writer) -> Writer:
    return lambda value: [writer(item) for item in ([value] if isinstance(value, str) else value)]


def _hosts(value: Any) -> list[str]:
    return sorted(canonical.text(item) for item in value)


def _free(writer: Writer) -> Writer:
    """A map with free keys: Go sorts them."""
    return lambda value: {key: writer(value[key]) for key in sorted(value)}


def _count(value: Any) -> int:
    return -1 if str(value).lower() == "all" else int(value)


def _mode(value: Any) -> str:
    return f"0{int(value, 8) if isinstance(value, str) else int(value):o}"


def _ulimit(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return int(value)
    return {key: int(value[key]) for key in ("soft", "hard") if value.get(key)}


def _nullable(writer: Writer) -> Writer:
    return lambda value: None if value is None else writer(value)


def _options(value: Any) -> Json:
    return {
        key: [canonical.text(one) for one in (value[key] if isinstance(value[key], list) else [value[key]])]
        for key in sorted(value)
    }


def _command(value: Any) -> Any:
    return None if value is None else [canonical.text(item) for item in value]


def _devices(value: Any) -> list[Json]:
    rows = [{"count": "all"}] if isinstance(value, str) else value
    return [_REQUEST(row if "count" in row or "device_ids" in row else {**row, "count": "all"}) for row in rows]


_NOT_COUNTED = frozenset({"build", "pull_policy", "scale", "depends_on", "profiles", "env_file", "label_file"})

_str, _int = _if_some(_text), _if_some(int)
_bool, _flag = _if_some(canonical.boolean), _pointer(canonical.boolean)
_size, _float = _if_some(_bytes), _if_some(_single)
_texts, _map = _if_some(_list(_text)), _if_some(_mapping)
_time, _time_or_none = _if_some(_some_duration), _pointer(_duration)

_HOOK = _struct({
    "command": _command, "image": _str, "user": _str, "privileged": _bool, "working_dir": _str,
    "environment": _if_some(lambda value: _mapping(value, None)), "per_replica": _bool,
})  # fmt: skip
_REQUEST = _struct({
    "capabilities": _texts, "driver": _str, "count": _if_some(_count), "device_ids": _texts, "options": _map,
})  # fmt: skip
_UPDATE = _struct({
    "parallelism": _pointer(int), "delay": _time, "failure_action": _str, "monitor": _time,
    "max_failure_ratio": _float, "order": _str,
})  # fmt: skip
_RESOURCE = _struct({
    "cpus": _float, "memory": _size, "pids": _int, "devices": _if_some(_devices),
    "generic_resources": _if_some(_list(_struct({
        "discrete_resource_spec": _pointer(_struct({"kind": _text, "value": int})),
    }))),
})  # fmt: skip
_DEPLOY = _struct({
    "mode": _str, "labels": _map, "update_config": _pointer(_UPDATE), "rollback_config": _pointer(_UPDATE),
    "resources": lambda value: _struct({"limits": _pointer(_RESOURCE), "reservations": _pointer(_RESOURCE)})(
        value or {}
    ),
    "restart_policy": _pointer(_struct({
        "condition": _str, "delay": _time_or_none, "max_attempts": _pointer(int), "window": _time_or_none,
    })),
    "placement": lambda value: _struct({
        "constraints": _texts, "preferences": _if_some(_list(_struct({"spread": _str}))),
        "max_replicas_per_node": _int,
    })(value or {}),
    "endpoint_mode": _str,
})  # fmt: skip
_FILE = _if_some(_list(_struct({
    "source": _str, "target": _str, "uid": _str, "gid": _str, "mode": _pointer(_mode),
})))  # fmt: skip


def _rates(value: Any) -> Any:
    """Go's structure has no names for JSON here: ``Path`` and a quoted ``Rate``."""
    return [{"Path": _text(row["path"]), "Rate": str(canonical.size(row["rate"]))} for row in value]


def _secrets(value: Any) -> Any:
    return _FILE([{"target": f"/run/secrets/{row['source']}", **row} for row in value])


_SERVICE: dict[str, Writer] = {
    "annotations": _map, "attach": _flag,
    "develop": _pointer(_struct({"watch": _if_some(_list(_struct({
        "path": _text, "action": _text, "target": _str, "exec": lambda value: _HOOK(value or {}),
        "include": _texts, "ignore": _texts, "initial_sync": _bool,
    })))})),
    "blkio_config": _pointer(_struct({
        "weight": _int,
        "weight_device": _if_some(lambda rows: [
            {"Path": _text(row["path"]), "Weight": int(row["weight"])} for row in rows
        ]),
        "device_read_bps": _if_some(_rates), "device_read_iops": _if_some(_rates),
        "device_write_bps": _if_some(_rates), "device_write_iops": _if_some(_rates),
    })),
    "cap_add": _texts, "cap_drop": _texts, "cgroup_parent": _str, "cgroup": _str, "cpu_count": _int,
    "cpu_percent": _float, "cpu_period": _int, "cpu_quota": _int, "cpu_rt_period": _int, "cpu_rt_runtime": _int,
    "cpus": _float, "cpuset": _str, "cpu_shares": _int, "command": _command, "configs": _FILE,
    "container_name": _str,
    "credential_spec": _pointer(_struct({"config": _str, "file": _str, "registry": _str})),
    "deploy": _pointer(_DEPLOY), "device_cgroup_rules": _texts,
    "devices": _if_some(_list(_struct({"source": _str, "target": _str, "permissions": _str}))),
    "dns": _texts, "dns_opt": _texts, "dns_search": _texts, "domainname": _str, "entrypoint": _command,
    "provider": _pointer(_struct({"type": _str, "options": _if_some(_options)})),
    "environment": _if_some(lambda value: _mapping(value, None)), "expose": _texts, "external_links": _texts,
    "extra_hosts": _if_some(_hosts), "group_add": _texts, "gpus": _if_some(_devices), "hostname": _str,
    "healthcheck": _pointer(_struct({
        "test": _texts, "timeout": _time_or_none, "interval": _time_or_none, "retries": _pointer(int),
        "start_period": _time_or_none, "start_interval": _time_or_none, "disable": _bool,
    })),
    "image": _str, "init": _flag, "ipc": _str, "isolation": _str, "labels": _map, "links": _texts,
    "logging": _pointer(_struct({"driver": _str, "options": _map})), "mem_limit": _size, "mem_reservation": _size,
    "memswap_limit": _size, "mem_swappiness": _size, "mac_address": _str,
    "models": _if_some(_free(_nullable(_struct({"endpoint_var": _str, "model_var": _str})))),
    "network_mode": _str,
    "networks": _if_some(_free(_nullable(_struct({
        "aliases": _texts, "driver_opts": _map, "gw_priority": _int, "interface_name": _str, "ipv4_address": _str,
        "ipv6_address": _str, "link_local_ips": _texts, "mac_address": _str, "priority": _int,
    })))),
    "oom_kill_disable": _bool, "oom_score_adj": _int, "pid": _str, "pids_limit": _int, "platform": _str,
    "ports": _if_some(_list(_struct({
        "name": _str, "mode": _str, "host_ip": _str, "target": _int, "published": _str, "protocol": _str,
        "app_protocol": _str,
    }))),
    "privileged": _bool, "read_only": _bool, "restart": _str, "runtime": _str, "secrets": _if_some(_secrets),
    "security_opt": _texts, "shm_size": _size, "stdin_open": _bool, "stop_grace_period": _time_or_none,
    "stop_signal": _str, "storage_opt": _map, "sysctls": _map, "tmpfs": _texts, "tty": _bool,
    "ulimits": _if_some(_free(_ulimit)), "use_api_socket": _bool, "user": _str, "userns_mode": _str, "uts": _str,
    "volumes": _if_some(_list(_struct({
        "type": _str, "source": _str, "target": _str, "read_only": _bool, "consistency": _str,
        "bind": _pointer(_struct({
            "selinux": _str, "propagation": _str, "create_host_path": _flag, "recursive": _str,
        })),
        "volume": _pointer(_struct({"labels": _map, "nocopy": _bool, "subpath": _str})),
        "tmpfs": _pointer(_struct({"size": _size, "mode": _int})), "image": _pointer(_struct({"subpath": _str})),
    }))),
    "volumes_from": _texts, "working_dir": _str, "pre_start": _if_some(_list(_HOOK)),
    "post_start": _if_some(_list(_HOOK)), "pre_stop": _if_some(_list(_HOOK)),
}  # fmt: skip
_OLD_NETWORKS = _if_some(_free(_nullable(_struct({
    "priority": _int, "gw_priority": _int, "aliases": _texts, "ipv4_address": _str, "ipv6_address": _str,
    "link_local_ips": _texts, "mac_address": _str, "driver_opts": _map,
}))))  # fmt: skip
_IPAM = _struct({
    "driver": _str,
    "config": _if_some(_list(_struct({"subnet": _str, "gateway": _str, "ip_range": _str, "aux_addresses": _map}))),
    "options": _map,
})  # fmt: skip
_NETWORK: dict[str, Writer] = {
    "name": _str, "driver": _str, "driver_opts": _map, "ipam": lambda value: _IPAM(value or {}), "external": _bool,
    "internal": _bool, "attachable": _bool, "labels": _map, "enable_ipv4": _flag, "enable_ipv6": _flag,
}  # fmt: skip
_VOLUME: dict[str, Writer] = {
    "name": _str, "driver": _str, "driver_opts": _map, "external": _bool, "labels": _map,
}  # fmt: skip
