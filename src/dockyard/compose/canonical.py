"""Short forms to long ones, so that merge and plan see one form only. Pure.

Ports ``"8080:80"``, volumes ``"db:/data:ro"``, ``KEY=VALUE`` lists, ``depends_on`` lists, a build as a path, durations
and sizes: each becomes what the Compose Specification calls its long syntax. Paths stay as written; ``loader`` makes
them absolute, since only it knows which file they came from.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable
from typing import Any

from dockyard.compose.document import Map, Seq, place
from dockyard.compose.errors import BAD_VALUE

Fail = Callable[[str], Exception]

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIME = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.]+\]|\d+\.\d+\.\d+\.\d+|[0-9a-fA-F]*:[0-9a-fA-F:]*):)?(?:(?P<published>\d*(?:-\d+)?):)?"
    r"(?P<target>\d+(?:-\d+)?)(?:/(?P<protocol>tcp|udp|sctp))?\Z"
)
_ACCESS = frozenset({"ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent"})
_PROPAGATION = frozenset({"shared", "slave", "private", "rshared", "rslave", "rprivate"})


def size(text: Any) -> int:
    """Bytes of ``512m``, ``1.5gb``, ``1024``. Raises ValueError."""
    if isinstance(text, (int, float)):
        return int(text)
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([bkmgtBKMGT]?)(?:i?[bB])?", str(text).strip())
    if not match:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(match[1]) * _UNITS.get(match[2].lower() or "b", 1))


def duration(text: Any) -> float:
    """Seconds of ``1m30s``, ``500ms``; a bare number is seconds. Raises ValueError."""
    if isinstance(text, (int, float)):
        return float(text)
    plain = str(text).strip()
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        return float(plain)
    parts = re.findall(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d|w)", plain)
    if not parts or "".join(number + unit for number, unit in parts) != plain:
        raise ValueError(f"invalid duration: '{text}'")
    return sum(float(number) * _TIME[unit] for number, unit in parts)


def boolean(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).lower() in {"true", "yes", "y", "on", "1"}


def pairs(value: Any) -> dict[str, str | None]:
    """``["A=1", "B"]`` or a mapping to a mapping; a name alone has None."""
    if value is None:
        return Map()
    if isinstance(value, dict):
        return Map({key: None if item is None else text(item) for key, item in value.items()})
    made: dict[str, str | None] = Map()
    for item in value:
        name, equals, rest = item.partition("=")
        made[name] = rest if equals else None
    return made


def text(value: Any) -> str:
    """A scalar as Go prints it, which is what Compose hands on: ``true`` for a YAML boolean, ``1`` for ``1.0``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)


def hosts(value: Any) -> Seq:
    """extra_hosts as ``name=address`` (either separator is accepted, a mapping too); brackets of IPv6 are taken off."""
    if isinstance(value, dict):
        pairs_of = [(name, one) for name, many in value.items() for one in (many if isinstance(many, list) else [many])]
    else:
        pairs_of = []
        for item in value:
            name, separator, rest = item.partition("=")
            if not separator:
                name, separator, rest = item.partition(":")
            if not separator or not name:
                raise ValueError(f"invalid additional host, missing IP: {item}")
            pairs_of += [(name, one) for one in rest.split(",")]
    bare = ((name, text(address)) for name, address in pairs_of)
    return Seq(f"{name}={one[1:-1] if one[:1] == '[' and one[-1:] == ']' else one}" for name, one in bare)


def string_list(value: Any) -> Seq:
    return Seq([value] if isinstance(value, str) else [text(item) for item in value])


def command(value: Any) -> list[str] | None:
    if value is None:
        return None
    return shlex.split(value) if isinstance(value, str) else [text(item) for item in value]


def ports(spec: Any, fail: Fail) -> list[Map]:
    """One long form for each port of a range. Raises by ``fail``."""
    if isinstance(spec, dict):
        made = Map({"mode": "ingress", "protocol": "tcp"} | spec)
        try:
            made["target"] = int(made["target"])
        except (KeyError, ValueError, TypeError, OverflowError):
            raise fail("a port needs a target, which is a number") from None
        if "published" in made:
            made["published"] = str(made["published"])
        return [made]
    match = _PORT.match(str(spec))
    if not match:
        raise fail(f"invalid port '{spec}': expected [[IP:]HOST:]CONTAINER[/PROTOCOL]")
    try:
        targets = port_range(match["target"])
        published: list[Any] = port_range(match["published"]) if match["published"] else []
    except ValueError as wrong:
        raise fail(f"invalid port '{spec}': {wrong}") from None
    if published and len(published) != len(targets):
        if len(targets) != 1:
            raise fail(f"invalid port '{spec}': ranges have different lengths")
        published = [match["published"]]
    if any(not 0 < port < 65536 for port in [*targets, *(item for item in published if isinstance(item, int))]):
        raise fail(f"invalid port '{spec}': not between 1 and 65535")
    rows = []
    for index, target in enumerate(targets):
        row = Map({"mode": "ingress", "target": target, "protocol": match["protocol"] or "tcp"})
        if published:
            row["published"] = str(published[index])
        if match["ip"]:
            row["host_ip"] = match["ip"].strip("[]")
        rows.append(row)
    return rows


def port_range(span: str) -> list[int]:
    """``80`` or ``80-90``. Raises ValueError beyond 65535 or backwards, before anything is made of it."""
    first, _, last = span.partition("-")
    low, high = int(first), int(last or first)
    if not 0 <= low <= high <= 65535:
        raise ValueError(f"invalid port range '{span}'")
    return list(range(low, high + 1))


def volume(spec: Any, fail: Fail) -> Map:
    if isinstance(spec, dict):
        made = Map(spec)
        made.setdefault("type", "volume")
        if not made.get("target"):
            raise fail("a volume needs a target")
        made["target"] = posixpath.normpath(text(made["target"]))
        return made
    parts = str(spec).split(":")
    if len(parts) > 3 or not all(parts):
        raise fail(f"invalid volume '{spec}': expected [SOURCE:]TARGET[:MODE]")
    if len(parts) == 1:
        return Map({"type": "volume", "target": posixpath.normpath(parts[0]), "volume": Map()})
    source, target = parts[:2]
    made = Map({"type": "bind" if source[0] in "./~" else "volume", "source": source})
    made["target"] = posixpath.normpath(target)
    made[made["type"]] = Map({"create_host_path": True} if made["type"] == "bind" else {})
    for mode in parts[2].split(",") if len(parts) == 3 else []:
        if mode in _PROPAGATION and made["type"] == "bind":
            made["bind"]["propagation"] = mode
        elif mode == "ro":
            made["read_only"] = True
        elif mode in {"z", "Z"} and made["type"] == "bind":
            made["bind"]["selinux"] = mode
        elif mode == "nocopy":
            made["volume"] = Map({"nocopy": True})
        elif mode not in _ACCESS:
            raise fail(f"invalid volume '{spec}': unknown mode '{mode}'")
    return made


def file_ref(spec: Any) -> Map:
    return Map({"source": spec}) if isinstance(spec, str) else Map(spec)


def device(spec: Any) -> Map:
    if isinstance(spec, dict):
        if not spec.get("source"):
            raise ValueError("a device needs a source")
        return Map(spec)
    source, *rest = spec.split(":")
    return Map(
        {"source": source, "target": rest[0] if rest else source, "permissions": rest[1] if len(rest) > 1 else "rwm"}
    )


def depends_on(value: Any) -> Map:
    if isinstance(value, list):
        return Map({text(name): Map({"condition": "service_started", "required": True}) for name in value})
    default = {"condition": "service_started", "required": True}
    return Map({name: Map(default | dict(terms or {})) for name, terms in value.items()})


def networks(value: Any) -> Map:
    return Map(dict.fromkeys(text(name) for name in value)) if isinstance(value, list) else Map(value)


def build(value: Any) -> Map:
    made = Map({"context": value}) if isinstance(value, str) else Map(value)
    for key in ("args", "labels", "additional_contexts", "ssh"):
        if key in made:
            made[key] = _keep_tag(made[key], pairs)
    if "extra_hosts" in made:
        made["extra_hosts"] = hosts(made["extra_hosts"])
    if made.get("dockerfile_inline") is None and "context" in made:
        made.setdefault("dockerfile", "Dockerfile")
    return made


def healthcheck(value: Map) -> Map:
    made = Map(value)
    if isinstance(made.get("test"), str):
        made["test"] = ["CMD-SHELL", made["test"]]
    return made


def env_files(value: Any) -> Seq:
    rows = [value] if isinstance(value, str) else value
    return Seq(
        Map({"path": row, "required": True}) if isinstance(row, str) else Map({"required": True} | row) for row in rows
    )


def ulimits(value: Map) -> Map:
    made = Map()
    for name, limit in value.items():
        made[name] = (
            Map({"soft": int(limit["soft"]), "hard": int(limit["hard"])}) if isinstance(limit, dict) else int(limit)
        )
    return made


def hooks(value: Any) -> Seq:
    return Seq(Map({**hook, "command": command(hook.get("command"))}) for hook in value)


def develop(value: Any) -> Any:
    if value is None or not value.get("watch"):
        return value
    rules = Seq(Map(rule) for rule in value["watch"])
    for rule in rules:
        for key in ("ignore", "include"):
            if key in rule:
                rule[key] = string_list(rule[key])
        if "exec" in rule:
            rule["exec"] = Map({**rule["exec"], "command": command(rule["exec"].get("command"))})
    return Map({**value, "watch": rules})


def _keep_tag(value: Any, convert: Callable[[Any], Any]) -> Any:
    """``!reset`` and ``!override`` belong to the value, whatever its form."""
    tag = getattr(value, "tag", "")
    if tag == "reset":
        return value
    made = convert(value)
    if tag:
        if not isinstance(made, (Map, Seq)):
            made = Seq(made) if isinstance(made, list) else made
        made.tag = tag
    return made


_SIMPLE: dict[str, Callable[[Any], Any]] = {
    "environment": pairs, "labels": pairs, "annotations": pairs, "sysctls": pairs, "extra_hosts": hosts,
    "dns": string_list, "dns_search": string_list, "tmpfs": string_list, "label_file": string_list,
    "command": command, "entrypoint": command, "depends_on": depends_on, "networks": networks, "models": networks, "build": build,
    "pre_start": hooks, "post_start": hooks, "pre_stop": hooks, "develop": develop,
    "healthcheck": healthcheck, "env_file": env_files, "ulimits": ulimits,
    "secrets": lambda value: Seq(file_ref(item) for item in value),
    "configs": lambda value: Seq(file_ref(item) for item in value),
    "devices": lambda value: Seq(device(item) for item in value),
    "expose": lambda value: Seq(text(item) for item in value),
    **dict.fromkeys((
        "group_add", "links", "external_links", "volumes_from", "profiles", "cap_add", "cap_drop", "dns_opt", "security_opt",
        "device_cgroup_rules",
    ), string_list),
}  # fmt: skip
_BOOLEANS = ("init", "privileged", "read_only", "stdin_open", "tty", "oom_kill_disable", "attach")
_STRINGS = ("user", "hostname", "container_name", "image", "working_dir", "domainname", "mac_address", "cpuset")


def service(name: str, raw: Map, file: str) -> Map:
    """A service in long form. Raises InvalidParameter with file and line."""
    made = Map(raw)
    made.line, made.lines, made.tag = raw.line, raw.lines, raw.tag

    def failing(key: str) -> Fail:
        return lambda cause: BAD_VALUE(where=place(file, raw, key), path=f"services.{name}.{key}", cause=cause)

    for key, convert in _SIMPLE.items():
        if key in made and (made[key] is not None or key in {"command", "entrypoint"}):
            try:
                made[key] = _keep_tag(made[key], convert)
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as wrong:
                raise failing(key)(str(wrong)) from None
    if made.get("ports") is not None:
        made["ports"] = _keep_tag(
            made["ports"], lambda rows: Seq(one for row in rows for one in ports(row, failing("ports")))
        )
    if made.get("volumes") is not None:
        made["volumes"] = _keep_tag(made["volumes"], lambda rows: Seq(volume(row, failing("volumes")) for row in rows))
    for key in _BOOLEANS:
        if isinstance(made.get(key), str):
            made[key] = boolean(made[key])
    for key in _STRINGS:
        if isinstance(made.get(key), (int, float)):
            made[key] = text(made[key])
    return made
