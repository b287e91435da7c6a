"""From a create request to an OCI runtime configuration (runtime-spec 1.0). Pure: what is not in the request or in
``facts`` plays no part.

The parts: who and what runs (``process``), where (``namespaces``, ``mounts``), how much (``plan_resources``), and with
what rights (``security``).
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from dockyard.model.container import Resources
from dockyard.model.idmap import IdRange
from dockyard.runtime import errors, security
from dockyard.runtime.model import HostFacts, Plan
from dockyard.runtime.plan_mounts import INIT_PATH, plan_mounts
from dockyard.runtime.plan_resources import plan_devices, plan_resources, plan_rlimits
from dockyard.runtime.request import HOST, PRIVATE, SpecRequest
from dockyard.runtime.users import User

OCI_VERSION = "1.0.2"
"""What runc 1.1 of Debian 12 knows; nothing newer is used."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KINDS = {"pid": "pid", "net": "network", "ipc": "ipc", "uts": "uts"}
_IPC_SYSCTLS = ("fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm")


def make_spec(request: SpecRequest, facts: HostFacts) -> Plan:
    """Raises InvalidParameter in Docker's words; warnings are sentences for the answer of create."""
    _refuse(request, facts)
    options = security.parse_security_options(request.host.security_opt or ())
    capabilities, warnings = security.plan_capabilities(
        request.host.cap_add, request.host.cap_drop, facts.capabilities, privileged=request.host.privileged
    )
    process, more = _process(request, facts, options, capabilities)
    mounts, propagation = plan_mounts(request, facts, writable_cgroups=options.writable_cgroups)
    linux, most = _linux(request, facts, options, capabilities)
    if propagation:
        linux["rootfsPropagation"] = propagation
    spec: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "root": {"path": request.rootfs, "readonly": request.host.readonly_rootfs},
        "process": process,
        "mounts": mounts,
        "linux": linux,
    }
    if request.namespaces.uts == PRIVATE and request.hostname:
        spec["hostname"] = request.hostname
    if request.host.annotations:
        spec["annotations"] = dict(request.host.annotations)
    return Plan(spec, [*warnings, *more, *most])


def _refuse(request: SpecRequest, facts: HostFacts) -> None:
    host = request.host
    if host.device_requests:
        first = host.device_requests[0]
        words = " ".join(f"[{' '.join(group)}]" for group in first.capabilities or ())
        raise errors.NO_GPU(driver=first.driver, capabilities=f"[{words}]")
    if request.init and not facts.init_path:
        raise errors.NO_INIT()
    if not request.argv:
        raise errors.INVALID(cause="no command specified")
    if host.shm_size < 0:
        raise errors.INVALID(cause="SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        cause = f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        raise errors.INVALID(cause=cause)
    if host.cgroupns_mode not in ("", "private", "host"):
        raise errors.INVALID(cause=f"invalid cgroup namespace mode: {host.cgroupns_mode}")


# -- process -----------------------------------------------------------------------------------------------------------


def _process(
    request: SpecRequest, facts: HostFacts, options: security.SecurityOptions, capabilities: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    host, config = request.host, request.config
    rlimits, warnings = plan_rlimits(host.ulimits or (), request.default_ulimits, facts)
    argv = [INIT_PATH, "--", *request.argv] if request.init else list(request.argv)
    out = plan_process(
        argv, env=request.env, cwd=request.cwd, user=request.user, tty=config.tty, size=host.console_size,
        hostname=request.hostname, capabilities=capabilities, no_new_privileges=options.no_new_privileges,
    )  # fmt: skip
    if rlimits:
        out["rlimits"] = rlimits
    if host.oom_score_adj < 0 and not facts.can_raise_limits:
        warnings.append(
            f"this host cannot lower the OOM score to {host.oom_score_adj} (no CAP_SYS_RESOURCE): it was left alone"
        )
    elif host.oom_score_adj or facts.can_raise_limits:
        out["oomScoreAdj"] = host.oom_score_adj
    if facts.apparmor and options.apparmor != "unconfined":
        profile = options.apparmor or ("" if host.privileged else facts.apparmor_default)
        out.update({"apparmorProfile": profile} if profile else {})
    return out, warnings


def plan_process(
    argv: Sequence[str],
    *,
    env: Sequence[str],
    cwd: str,
    user: User,
    tty: bool,
    size: Sequence[int] | None,
    hostname: str,
    capabilities: Sequence[str],
    no_new_privileges: bool,
) -> dict[str, Any]:
    """``process`` of a container, and the whole document that an exec needs. ``size`` is (height, width)."""
    cwd = posixpath.normpath(cwd or "/")
    if not cwd.startswith("/"):
        raise errors.INVALID(cause=f"the working directory '{cwd}' is invalid, it needs to be an absolute path")
    names = list(capabilities)
    out: dict[str, Any] = {
        "args": list(argv),
        "cwd": "/" + cwd.lstrip("/"),
        "env": plan_env(env, hostname=hostname, tty=tty, home=user.home),
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": sorted(set(user.groups) | {user.gid})},
        "terminal": tty,
        # inheritable and ambient stay empty (CVE-2022-24769)
        "capabilities": {"bounding": names, "effective": names, "permitted": names},
        "noNewPrivileges": no_new_privileges,
    }
    if tty and size and len(size) == 2 and all(size):
        out["consoleSize"] = {"height": size[0], "width": size[1]}
    return out


def plan_env(env: Sequence[str], *, hostname: str, tty: bool, home: str) -> list[str]:
    """Docker's defaults, then the image's and the user's; a later name wins in the place of the first. A name without
    "=" removes a default."""
    defaults = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname, "TERM": "xterm" if tty else ""}
    out = {name: f"{name}={value}" for name, value in defaults.items() if value}
    for item in env:
        name, equals, _ = item.partition("=")
        if equals:
            out[name] = item
        else:
            out.pop(name, None)
    out.setdefault("HOME", f"HOME={home}")
    return list(out.values())


# -- linux -------------------------------------------------------------------------------------------------------------


def _linux(
    request: SpecRequest, facts: HostFacts, options: security.SecurityOptions, capabilities: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    host = request.host
    resources, warnings = plan_resources(host, facts, request.block_numbers)
    devices = request.devices
    resources["devices"] = plan_devices(devices, host.device_cgroup_rules or (), privileged=host.privileged)
    nodes = {device.path: device for device in (*(request.host_devices if host.privileged else ()), *devices)}
    out: dict[str, Any] = {
        "cgroupsPath": f"/{(host.cgroup_parent or request.cgroup_parent).strip('/')}/{request.id}",
        "resources": resources,
        "namespaces": _namespaces(request, facts),
        "sysctl": _sysctls(request),
        "devices": [
            {
                "path": node.path,
                "type": node.kind,
                "major": node.major,
                "minor": node.minor,
                "fileMode": node.mode,
                "uid": node.uid,
                "gid": node.gid,
            }
            for node in nodes.values()
        ],
        "maskedPaths": _paths(host.masked_paths, (*security.MASKED_PATHS, *facts.thermal_throttle), host.privileged),
        "readonlyPaths": _paths(host.readonly_paths, security.READONLY_PATHS, host.privileged),
    }
    if request.ids:
        out["uidMappings"] = [_mapping(each) for each in request.ids.uids]
        out["gidMappings"] = [_mapping(each) for each in request.ids.gids]
    if facts.seccomp:
        profile = security.plan_seccomp(
            options, privileged=host.privileged, arch=facts.arch, kernel=facts.kernel, capabilities=capabilities
        )
        out.update({"seccomp": profile} if profile is not None else {})
    elif options.seccomp not in ("", "unconfined"):
        cause = "seccomp is not enabled in your kernel, cannot run a custom seccomp profile"
        raise errors.INVALID(cause=cause)
    return out, warnings


def _mapping(each: IdRange) -> dict[str, int]:
    return {"containerID": each.container, "hostID": each.host, "size": each.size}


def _paths(wish: list[str] | None, default: Sequence[str], privileged: bool) -> list[str]:
    if privileged:
        return []
    return list(default if wish is None else wish)


def _namespaces(request: SpecRequest, facts: HostFacts) -> list[dict[str, str]]:
    modes = request.namespaces
    out = [{"type": "mount"}]
    for field, kind in _KINDS.items():
        mode = getattr(modes, field)
        if mode != HOST:
            out.append({"type": kind, "path": mode} if mode else {"type": kind})
    wish = request.host.cgroupns_mode or modes.cgroup
    if wish == "private" or (not wish and facts.cgroup.unified and not request.host.privileged):
        out.append({"type": "cgroup"})
    if request.ids:
        out.append({"type": "user", "path": modes.user} if modes.user else {"type": "user"})
    return out


def _sysctls(request: SpecRequest) -> dict[str, str]:
    """Docker's defaults for a private network, and the user's, who may set only what a namespace of his own holds."""
    modes, out = request.namespaces, {}
    if modes.net != HOST and not request.ids:
        out["net.ipv4.ip_unprivileged_port_start"] = "0"
        out["net.ipv4.ping_group_range"] = "0 2147483647"
    if request.config.domainname and modes.uts == PRIVATE:
        out["kernel.domainname"] = request.config.domainname
    for name, value in (request.host.sysctls or {}).items():
        dotted = name.replace("/", ".")
        if dotted.startswith("net."):
            if modes.net == HOST:
                raise errors.INVALID(cause=f'sysctl "{name}" not allowed in host network namespace')
        elif dotted.startswith(_IPC_SYSCTLS):
            if modes.ipc == HOST:
                raise errors.INVALID(cause=f'sysctl "{name}" not allowed in host ipc namespace')
        elif dotted not in ("kernel.domainname", "kernel.hostname"):
            raise errors.INVALID(cause=f'sysctl "{name}" is not in a separate kernel namespace')
        out[dotted] = value
    return out


# -- update ------------------------------------------------------------------------------------------------------------


def make_update(
    wish: Resources, facts: HostFacts, blocks: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, Any], list[str]]:
    """``linux.resources`` for a live container, which names what changes only."""
    return plan_resources(wish, facts, blocks, update=True)
