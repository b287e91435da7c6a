"""From a canonical service to the documents that an engine is sent: container, network and volume. Pure.

Follows docker/compose ``pkg/compose/create.go`` field by field, so that what is created here looks the same to every
tool that reads it. What is known only when it happens (IDs of other services' containers) comes in as `Situation`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dockyard
from dockyard.compose import labels, mounts
from dockyard.compose.canonical import boolean, duration, pairs, port_range, text
from dockyard.compose.errors import BAD_VALUE, MISSING_DEPENDENCY
from dockyard.compose.identity import network_hash, service_hash, volume_hash
from dockyard.compose.project import Project, dependencies
from dockyard.compose.resources import healthcheck, resources, restart_policy

Json = dict[str, Any]
SHARED = {"network_mode": "network namespace", "ipc": "IPC namespace", "pid": "PID namespace"}
_IFNAME = "com.docker.network.endpoint.ifname"


@dataclass(frozen=True, slots=True)
class Situation:
    """What a container document depends on besides the file.

    ``containers``: (ID, name) of each service's containers, in order of number. ``image_id`` is what the service's
    image name means now. ``proxy``: variables of the client's proxy settings. ``read`` gives a file's text (seccomp
    profiles). ``environment_files``: those of --env-file.
    """

    api: tuple[int, ...] = (1, 51)
    containers: Mapping[str, list[tuple[str, str]]] = field(default_factory=dict)
    image_id: str = ""
    proxy: Mapping[str, str] = field(default_factory=dict)
    environment_files: tuple[str, ...] = ()
    read: Callable[[str], str] = lambda path: ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which container of a service. ``number`` 0 and ``slug`` set: a one-off (compose run)."""

    service: str
    number: int = 1
    slug: str = ""
    aliases: bool = True
    replaces: str = ""
    auto_remove: bool = False
    attach_stdin: bool = False
    inherited: tuple[Json, ...] = ()


def resolve(service: Mapping[str, Any], containers: Mapping[str, list[tuple[str, str]]]) -> Json:
    """References to services replaced by container IDs. Raises NotFound when one has no container."""
    made = dict(service)
    for key, what in SHARED.items():
        mode = str(service.get(key) or "")
        if mode.startswith("service:"):
            made[key] = "container:" + _first(mode.removeprefix("service:"), what, containers)
    if service.get("volumes_from"):
        made["volumes_from"] = [_volumes_from(item, containers) for item in service["volumes_from"]]
    return made


def _first(name: str, what: str, containers: Mapping[str, list[tuple[str, str]]]) -> str:
    if not containers.get(name):
        raise MISSING_DEPENDENCY(what=what, name=name)
    return containers[name][0][0]


def _volumes_from(item: str, containers: Mapping[str, list[tuple[str, str]]]) -> str:
    name, _, mode = item.removeprefix("container:").partition(":")
    target = name if item.startswith("container:") else _first(name, "volumes", containers)
    return f"{target}:{mode}" if mode else target


def container(project: Project, wanted: Wanted, service: Mapping[str, Any], situation: Situation) -> Json:
    """Body of POST /containers/create; ``service`` is what `resolve` gave. Raises InvalidParameter."""
    links = _links(project, wanted, service, situation.containers)
    binds, more = mounts.volumes(project, service, wanted.inherited)
    mode, endpoints = _networks(project, wanted, service, links, situation.api)
    options, unconfined = _security(service, situation.read)
    host: Json = {
        "Binds": binds, "NetworkMode": mode, "RestartPolicy": restart_policy(service), "PortBindings": _bindings(service),
        **resources(service), **_given(service, _HOST),
    }  # fmt: skip
    if wanted.auto_remove:
        host["AutoRemove"] = True
        host["RestartPolicy"] = {"Name": "", "MaximumRetryCount": 0}
    optional = {
        "Mounts": more, "Links": links, "SecurityOpt": options,
        "ExtraHosts": [item.replace("=", ":", 1) for item in service.get("extra_hosts") or []],
        "Tmpfs": {path: rest for path, _, rest in (item.partition(":") for item in service.get("tmpfs") or [])},
        "LogConfig": _logging(service.get("logging")),
    }  # fmt: skip
    host |= {name: value for name, value in optional.items() if value}
    if unconfined:
        host |= {"MaskedPaths": [], "ReadonlyPaths": []}
    config: Json = {
        "Image": labels.image_name(project.name, project.separator, wanted.service, dict(service)),
        "Labels": _labels(project, wanted, service, situation), "Env": _environment(service, situation.proxy),
        "AttachStdout": True, "AttachStderr": True, "AttachStdin": wanted.attach_stdin,
        "OpenStdin": boolean(service.get("stdin_open", False)),
        "StdinOnce": wanted.attach_stdin and boolean(service.get("stdin_open", False)),
        "Tty": boolean(service.get("tty", False)), "ExposedPorts": _exposed(service), **_given(service, _CONFIG),
    }  # fmt: skip
    for key, name in (("command", "Cmd"), ("entrypoint", "Entrypoint")):
        if service.get(key) is not None:
            config[name] = list(service[key])
    if service.get("stop_grace_period") is not None:
        config["StopTimeout"] = int(duration(service["stop_grace_period"]))
    check = healthcheck(service, situation.api)
    if check:
        config["Healthcheck"] = check
    made = {**config, "HostConfig": host}
    return {**made, "NetworkingConfig": {"EndpointsConfig": endpoints}} if endpoints else made


def hook_container(
    project: Project, name: str, service: Mapping[str, Any], hook: Mapping[str, Any], replica: str, situation: Situation
) -> Json:
    """Body of POST /containers/create for a pre_start hook of a service (docker/compose ``pkg/compose/pre_start.go``): on
    the service's networks, with the volumes of ``replica``, an ID."""
    wanted = Wanted(name, number=0, aliases=False)
    mode, endpoints = _networks(project, wanted, service, [], situation.api)
    environment = {**(service.get("environment") or {}), **pairs(hook.get("environment"))}
    config: Json = {
        "Image": str(hook.get("image") or labels.image_name(project.name, project.separator, name, dict(service))),
        "Env": _environment({"environment": environment}, situation.proxy),
        "Labels": {
            labels.PROJECT: project.name, labels.SERVICE: name, labels.VERSION: dockyard.__version__, labels.HOOK: "pre_start",
        },
        "HostConfig": {"NetworkMode": mode, "VolumesFrom": [replica], "Privileged": boolean(hook.get("privileged", False))},
    }  # fmt: skip
    if hook.get("command") is not None:
        config["Cmd"] = list(hook["command"])
    inherited = {} if hook.get("image") else {key: service.get(key) for key in ("user", "working_dir")}
    config |= _given({**inherited, **hook}, {"user": "User", "working_dir": "WorkingDir"})
    return {**config, "NetworkingConfig": {"EndpointsConfig": endpoints}} if endpoints else config


_CONFIG = {
    "hostname": "Hostname", "domainname": "Domainname", "user": "User", "working_dir": "WorkingDir",
    "stop_signal": "StopSignal",
}  # fmt: skip
_HOST = {
    "cap_add": "CapAdd", "cap_drop": "CapDrop", "dns": "Dns", "dns_opt": "DnsOptions", "dns_search": "DnsSearch",
    "group_add": "GroupAdd", "ipc": "IpcMode", "pid": "PidMode", "uts": "UTSMode", "userns_mode": "UsernsMode",
    "cgroup": "CgroupnsMode", "isolation": "Isolation", "runtime": "Runtime", "privileged": "Privileged",
    "read_only": "ReadonlyRootfs", "init": "Init", "volumes_from": "VolumesFrom", "storage_opt": "StorageOpt",
    "sysctls": "Sysctls", "annotations": "Annotations", "volume_driver": "VolumeDriver",
}  # fmt: skip


def _given(service: Mapping[str, Any], names: Mapping[str, str]) -> Json:
    made: Json = {}
    for key, name in names.items():
        value = service.get(key)
        if value is None or value in ("", [], {}):
            continue
        if isinstance(value, Mapping):
            made[name] = {item: "" if value[item] is None else text(value[item]) for item in value}
        elif isinstance(value, list):
            made[name] = [text(item) for item in value]
        else:
            made[name] = value if isinstance(value, bool) else str(value)
    return made


def _environment(service: Mapping[str, Any], proxy: Mapping[str, str]) -> list[str]:
    merged: dict[str, str | None] = {**proxy, **(service.get("environment") or {})}
    return [name if value is None else f"{name}={value}" for name, value in merged.items()]


def _labels(project: Project, wanted: Wanted, service: Mapping[str, Any], situation: Situation) -> dict[str, str]:
    made = {name: "" if value is None else str(value) for name, value in (service.get("labels") or {}).items()}
    made |= {
        labels.PROJECT: project.name, labels.SERVICE: wanted.service, labels.VERSION: dockyard.__version__,
        labels.WORKING_DIR: project.directory, labels.CONFIG_FILES: ",".join(project.files),
        labels.ONEOFF: "True" if wanted.slug else "False", labels.CONFIG_HASH: service_hash(service),
        labels.DEPENDENCIES: ",".join(
            f"{name}:{terms.get('condition', 'service_started')}:{text(bool(terms.get('restart', False)))}"
            for name, terms in dependencies(dict(service)).items()
        ),
        labels.IMAGE: situation.image_id,
    }  # fmt: skip
    if wanted.number:
        made[labels.NUMBER] = str(wanted.number)
    if wanted.slug:
        made[labels.SLUG] = wanted.slug
    if wanted.replaces:
        made[labels.REPLACE] = wanted.replaces
    if situation.environment_files:
        made[labels.ENVIRONMENT_FILE] = ",".join(situation.environment_files)
    return made


def _exposed(service: Mapping[str, Any]) -> dict[str, Json]:
    ports = [f"{port['target']}/{port.get('protocol') or 'tcp'}" for port in service.get("ports") or []]
    for item in service.get("expose") or []:
        span, _, protocol = str(item).partition("/")
        try:
            ports += [f"{port}/{protocol or 'tcp'}" for port in port_range(span)]
        except ValueError:
            raise BAD_VALUE(where="service", path="expose", cause=f"invalid port '{item}'") from None
    return {port: {} for port in ports}


def _bindings(service: Mapping[str, Any]) -> dict[str, list[Json]]:
    made: dict[str, list[Json]] = {}
    for port in service.get("ports") or []:
        row = {"HostIp": port.get("host_ip") or "", "HostPort": str(port.get("published") or "")}
        made.setdefault(f"{port['target']}/{port.get('protocol') or 'tcp'}", []).append(row)
    return made


def _logging(logging: Mapping[str, Any] | None) -> Json:
    if not logging:
        return {}
    options = {key: text(value) for key, value in (logging.get("options") or {}).items()}
    return {"Type": logging.get("driver") or "", "Config": options}


def _security(service: Mapping[str, Any], read: Callable[[str], str]) -> tuple[list[str], bool]:
    """Profiles are sent by content; ``systempaths=unconfined`` is no option of the engine's but two empty lists."""
    made, unconfined = [], False
    for option in service.get("security_opt") or []:
        name, _, value = option.replace(":", "=", 1).partition("=") if "=" not in option else option.partition("=")
        if option == "systempaths=unconfined":
            unconfined = True
        elif not value and option != "no-new-privileges":
            raise BAD_VALUE(where="service", path="security_opt", cause=f"invalid security-opt: '{option}'")
        elif name == "seccomp" and value not in {"unconfined", "builtin"}:
            try:
                profile = json.loads(read(value))
            except (OSError, ValueError) as broken:
                cause = f"cannot read seccomp profile {value}: {broken}"
                raise BAD_VALUE(where="service", path="security_opt", cause=cause) from None
            made.append("seccomp=" + json.dumps(profile, separators=(",", ":")))
        else:
            made.append(option)
    return made, unconfined


def _links(
    project: Project, wanted: Wanted, service: Mapping[str, Any], containers: Mapping[str, list[tuple[str, str]]]
) -> list[str]:
    """Each linked container under its alias, its name without the project, and its whole name."""
    made = []
    prefix = project.name + project.separator
    for link in service.get("links") or []:
        target, _, alias = link.partition(":")
        for _, name in containers.get(target, []):
            made += [f"{name}:{alias or target}", f"{name}:{name.removeprefix(prefix)}", f"{name}:{name}"]
    if wanted.slug:
        for _, name in containers.get(wanted.service, []):
            made += [f"{name}:{wanted.service}", f"{name}:{name.removeprefix(prefix)}", f"{name}:{name}"]
    for link in service.get("external_links") or []:
        target, _, alias = link.partition(":")
        made.append(f"{target}:{alias or target}")
    return list(dict.fromkeys(made))


def networks_by_priority(service: Mapping[str, Any]) -> list[str]:
    """The first is the primary: highest ``priority``, then by name."""
    terms = service.get("networks") or {}
    return sorted(terms, key=lambda name: (-int((terms[name] or {}).get("priority") or 0), name))


def _networks(
    project: Project, wanted: Wanted, service: Mapping[str, Any], links: list[str], api: tuple[int, ...]
) -> tuple[str, dict[str, Json]]:
    """(network mode, endpoints). Engines before API 1.44 take one endpoint at create; `later_networks` are the rest."""
    if service.get("network_mode"):
        return str(service["network_mode"]), {}
    ordered = networks_by_priority(service)
    if not ordered:
        return "none", {}
    chosen = ordered if api >= (1, 44) else ordered[:1]
    made = {str(project.networks[key]["name"]): endpoint(project, wanted, service, key, links) for key in chosen}
    return str(project.networks[ordered[0]]["name"]), made


def later_networks(
    project: Project, wanted: Wanted, service: Mapping[str, Any], situation: Situation
) -> dict[str, Json]:
    """Networks to connect after the create, with their endpoints."""
    if service.get("network_mode") or situation.api >= (1, 44):
        return {}
    links = _links(project, wanted, service, situation.containers)
    rest = networks_by_priority(service)[1:]
    return {str(project.networks[key]["name"]): endpoint(project, wanted, service, key, links) for key in rest}


def endpoint(project: Project, wanted: Wanted, service: Mapping[str, Any], key: str, links: list[str]) -> Json:
    terms = (service.get("networks") or {}).get(key) or {}
    given = str(service.get("container_name") or "")
    names = [labels.container_name(project.name, project.separator, wanted.service, wanted.number, given)]
    if wanted.slug:
        names = []
    if wanted.aliases:
        names += [wanted.service, *(terms.get("aliases") or [])]
    made: Json = {"Aliases": list(dict.fromkeys(names))}
    if links:
        made["Links"] = links
    address = {
        name: terms[item]
        for item, name in (("ipv4_address", "IPv4Address"), ("ipv6_address", "IPv6Address"))
        if terms.get(item)
    }
    if terms.get("link_local_ips"):
        address["LinkLocalIPs"] = list(terms["link_local_ips"])
    if address:
        made["IPAMConfig"] = address
    options = {name: text(value) for name, value in (terms.get("driver_opts") or {}).items()}
    if terms.get("interface_name"):
        options.setdefault(_IFNAME, terms["interface_name"])
    if options:
        made["DriverOpts"] = options
    if terms.get("gw_priority"):
        made["GwPriority"] = int(terms["gw_priority"])
    mac = terms.get("mac_address") or (service.get("mac_address") if key == networks_by_priority(service)[0] else "")
    if mac:
        made["MacAddress"] = mac
    return made


def network(project: Project, key: str) -> Json:
    """Body of POST /networks/create."""
    entry = project.networks[key]
    made: Json = {
        "Name": entry["name"], "CheckDuplicate": True, "Driver": entry.get("driver") or "",
        "Options": {name: text(value) for name, value in (entry.get("driver_opts") or {}).items()},
        "Internal": boolean(entry.get("internal", False)), "Attachable": boolean(entry.get("attachable", False)),
        "Labels": _own_labels(project, entry, {labels.NETWORK: key, labels.CONFIG_HASH: network_hash(entry)}),
    }  # fmt: skip
    for flag, name in (("enable_ipv6", "EnableIPv6"), ("enable_ipv4", "EnableIPv4")):
        if entry.get(flag) is not None:
            made[name] = boolean(entry[flag])
    ipam = entry.get("ipam") or {}
    if ipam:
        names = {"subnet": "Subnet", "ip_range": "IPRange", "gateway": "Gateway", "aux_addresses": "AuxiliaryAddresses"}
        made["IPAM"] = {
            "Driver": ipam.get("driver") or "default",
            "Config": [{names[item]: row[item] for item in names if row.get(item)} for row in ipam.get("config") or []],
            "Options": {name: text(value) for name, value in (ipam.get("options") or {}).items()},
        }  # fmt: skip
    return made


def volume(project: Project, key: str) -> Json:
    """Body of POST /volumes/create."""
    entry = project.volumes[key]
    return {
        "Name": entry["name"], "Driver": entry.get("driver") or "",
        "DriverOpts": {name: text(value) for name, value in (entry.get("driver_opts") or {}).items()},
        "Labels": _own_labels(project, entry, {labels.VOLUME: key, labels.CONFIG_HASH: volume_hash(entry)}),
    }  # fmt: skip


def _own_labels(project: Project, entry: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, str]:
    given = {name: "" if value is None else str(value) for name, value in (entry.get("labels") or {}).items()}
    return {**given, labels.PROJECT: project.name, labels.VERSION: dockyard.__version__, **own}
