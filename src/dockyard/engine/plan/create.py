"""From a create request and an image's config to what the container will be: merge and checks, as moby does them.

Merge follows runconfig.Merge (moby container/merge.go): the image fills what the request leaves empty; environment,
exposed ports, volumes and labels are united with the request winning; a new entrypoint discards the image's command.
Checks follow daemon/container.go verifyContainerSettings and daemon_unix.go; texts are moby's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from dockyard.engine.errors import BAD_REQUEST, CONFLICTING_OPTIONS, NO_COMMAND
from dockyard.model import ContainerConfig, HealthConfig, HostConfig, RestartPolicy
from dockyard.model.container import Resources

MIN_MEMORY = 6 << 20
MIN_HEALTH_TIME = 1_000_000
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?\Z")
_RESTART_POLICIES = frozenset({"", "no", "always", "unless-stopped", "on-failure", "unhealthy"})
_HOSTNAME = re.compile(r"[^\s\x00-\x1f\x7f]*\Z")
"""As dockerd all that the kernel takes (``my_app`` is common), but for what would be more than one word in /etc/hosts."""


def merge(config: ContainerConfig, image: ContainerConfig | None) -> ContainerConfig:
    """``config`` completed from ``image``. Raises InvalidParameter "no command specified"."""
    entrypoint, cmd = words(config.entrypoint), words(config.cmd)
    base = image or ContainerConfig()
    if entrypoint is None:
        if not cmd:
            cmd = words(base.cmd)
        entrypoint = words(base.entrypoint)
    elif entrypoint == [""]:
        entrypoint = None
    if not entrypoint and not cmd:
        raise NO_COMMAND()
    return config.replace(
        entrypoint=entrypoint,
        cmd=cmd,
        env=merge_env(base.env or [], config.env or []),
        exposed_ports=_ports(base.exposed_ports) | _ports(config.exposed_ports) or None,
        volumes=(base.volumes or {}) | (config.volumes or {}) or None,
        labels=(base.labels or {}) | (config.labels or {}),
        user=config.user or base.user,
        working_dir=config.working_dir or base.working_dir,
        healthcheck=_merge_health(config.healthcheck, base.healthcheck),
        stop_signal=config.stop_signal or base.stop_signal,
        stop_timeout=base.stop_timeout if config.stop_timeout is None else config.stop_timeout,
        shell=config.shell or base.shell,
        on_build=config.on_build or None,
    )


def parse_link(link: str) -> tuple[str, str]:
    """(container, alias) of ``db:alias``, ``db``, or ``/db:/web/alias`` as inspect shows it."""
    target, _, alias = link.strip("/").partition(":")
    return target.strip("/"), (alias or target).rpartition("/")[2]


def words(value: list[str] | str | None) -> list[str] | None:
    """Go's strslice: a lone string stands for a list of one."""
    return [value] if isinstance(value, str) else value


def merge_env(base: Iterable[str], own: Iterable[str]) -> list[str]:
    """Own assignments replace the base's in place. A bare ``NAME`` stays, as in Docker: it unsets a default at start."""
    merged = {entry.partition("=")[0]: entry for entry in base}
    for entry in own:
        merged[entry.partition("=")[0]] = entry
    return list(merged.values())


def _ports(ports: dict[str, Any] | None) -> dict[str, Any]:
    return {spec if "/" in spec else f"{spec}/tcp": {} for spec in ports or {}}


def _merge_health(own: HealthConfig | None, base: HealthConfig | None) -> HealthConfig | None:
    if own is None or base is None:
        return own or base
    changes = {
        name: getattr(base, name)
        for name in ("test", "interval", "timeout", "start_period", "start_interval", "retries")
        if not getattr(own, name)
    }
    merged: HealthConfig = own.replace(**changes)
    return merged


def check_config(config: ContainerConfig) -> None:
    """Raises InvalidParameter for what no host can run."""
    for entry in config.env or []:
        if not entry or entry.startswith("="):
            raise BAD_REQUEST(cause=f"invalid environment variable: {entry}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise BAD_REQUEST(
            cause=f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    if len(config.hostname) > 63 or not _HOSTNAME.match(config.hostname):
        raise BAD_REQUEST(cause=f"invalid hostname format: {config.hostname}")
    for port in config.exposed_ports or {}:
        check_port(port)
    _check_health(config.healthcheck)
    if config.stop_timeout is not None and config.stop_timeout < -1:
        raise BAD_REQUEST(cause="invalid stop timeout: must be -1 or more seconds")


def check_port(spec: str) -> tuple[int, int, str]:
    """(first, last, protocol) of ``80``, ``80/udp`` or ``8000-8010/tcp``."""
    match = _PORT.match(spec)
    if not match:
        raise BAD_REQUEST(cause=f"invalid port specification: {spec}")
    first = int(match[1])
    last = int(match[2] or first)
    if not 0 < first <= last <= 65535:
        raise BAD_REQUEST(cause=f"invalid port range: {spec}")
    return first, last, match[3] or "tcp"


def _check_health(health: HealthConfig | None) -> None:
    if health is None:
        return
    for name, value in (
        ("Interval", health.interval), ("Timeout", health.timeout), ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):  # fmt: skip
        if value and value < MIN_HEALTH_TIME:
            raise BAD_REQUEST(cause=f"{name} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise BAD_REQUEST(cause="Retries in Healthcheck cannot be negative")


def check_host(host: HostConfig, config: ContainerConfig) -> None:
    check_resources(host)
    check_restart_policy(host.restart_policy, auto_remove=host.auto_remove)
    if host.shm_size < 0:
        raise BAD_REQUEST(cause="SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise BAD_REQUEST(cause=f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.storage_opt:
        raise BAD_REQUEST(cause="--storage-opt is supported only for overlay over xfs with 'pquota' mount option")
    _check_modes(host, config)
    for port, bindings in (host.port_bindings or {}).items():
        check_port(port)
        for binding in bindings or []:
            if binding.host_port and not re.fullmatch(r"\d{1,5}(-\d{1,5})?", binding.host_port):
                raise BAD_REQUEST(cause=f'invalid port specification: "{binding.host_port}"')
    for name in host.sysctls or {}:
        if host.network_mode == "host" and name.startswith("net."):
            raise BAD_REQUEST(cause=f"sysctl '{name}' not allowed in host network namespace")


def _check_modes(host: HostConfig, config: ContainerConfig) -> None:
    mode = host.network_mode
    shared = mode == "host" or mode.startswith("container:")
    if mode.startswith("container:") and not mode.removeprefix("container:"):
        raise BAD_REQUEST(cause="Invalid network mode: invalid container format container:<name|id>")
    if mode.startswith("container:") and config.hostname:
        raise CONFLICTING_OPTIONS(cause="hostname and the network mode")
    if shared and host.links:
        raise CONFLICTING_OPTIONS(
            cause="host type networking can't be used with links. This would result in undefined behavior"
        )
    if mode.startswith("container:") and (host.port_bindings or host.publish_all_ports):
        raise CONFLICTING_OPTIONS(cause="port publishing and the container type network mode")
    if mode.startswith("container:") and (host.dns or host.extra_hosts):
        raise CONFLICTING_OPTIONS(cause="dns, custom host-to-IP mapping and the network mode")
    if host.uts_mode == "host" and config.hostname:
        raise CONFLICTING_OPTIONS(cause="hostname and the UTS mode")
    for kind, value in (("IPC", host.ipc_mode), ("PID", host.pid_mode), ("UTS", host.uts_mode)):
        if value and not _valid_mode(kind, value):
            raise BAD_REQUEST(cause=f"invalid {kind} mode: {value}")
    if host.cgroupns_mode not in {"", "host", "private"}:
        raise BAD_REQUEST(cause=f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if host.userns_mode not in {"", "host"}:
        raise BAD_REQUEST(cause=f"invalid user namespace mode: {host.userns_mode}")
    if host.isolation not in {"", "default"}:
        raise BAD_REQUEST(cause=f'invalid isolation "{host.isolation}" on linux')


def check_remapped(host: HostConfig) -> None:
    """What a container in a user namespace cannot have (moby daemon_unix.go verifyPlatformContainerSettings)."""
    if host.privileged:
        raise BAD_REQUEST(
            cause="privileged mode is incompatible with user namespaces.  You must run the container in the host namespace "
            "when running privileged mode"
        )
    if host.network_mode == "host":
        raise BAD_REQUEST(cause="cannot share the host's network namespace when user namespaces are enabled")
    if host.pid_mode == "host":
        raise BAD_REQUEST(cause="cannot share the host PID namespace when user namespaces are enabled")


def _valid_mode(kind: str, value: str) -> bool:
    if value == "host" or (value.startswith("container:") and len(value) > len("container:") and kind != "UTS"):
        return True
    return kind == "IPC" and value in {"none", "private", "shareable"}


def check_restart_policy(policy: RestartPolicy, *, auto_remove: bool) -> None:
    if policy.name not in _RESTART_POLICIES:
        raise BAD_REQUEST(
            cause=f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', "
            "'unless-stopped', or 'unhealthy'"
        )
    if policy.maximum_retry_count < 0:
        raise BAD_REQUEST(cause="invalid restart policy: maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name not in {"on-failure", "unhealthy"}:
        raise BAD_REQUEST(cause="invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if auto_remove and policy.name not in {"", "no"}:
        raise BAD_REQUEST(cause="can't create 'AutoRemove' container with restart policy")


def check_resources(limits: Resources) -> None:
    """Limits that contradict themselves (moby daemon_unix.go verifyPlatformContainerResources)."""
    if limits.memory and limits.memory < MIN_MEMORY:
        raise BAD_REQUEST(cause="Minimum memory limit allowed is 6MB")
    if limits.memory > 0 and 0 < limits.memory_swap < limits.memory:
        raise BAD_REQUEST(cause="Minimum memoryswap limit should be larger than memory limit, see usage")
    if limits.memory == 0 and limits.memory_swap > 0:
        raise BAD_REQUEST(cause="You should always set the Memory limit when using Memoryswap limit, see usage")
    if limits.memory_swappiness is not None and not -1 <= limits.memory_swappiness <= 100:
        raise BAD_REQUEST(cause=f"Invalid value: {limits.memory_swappiness}, valid memory swappiness range is 0-100")
    if limits.memory_reservation and limits.memory_reservation < MIN_MEMORY:
        raise BAD_REQUEST(cause="Minimum memory reservation allowed is 6MB")
    if limits.memory and limits.memory_reservation > limits.memory:
        raise BAD_REQUEST(cause="Minimum memory limit can not be less than memory reservation limit, see usage")
    _check_cpu(limits)
    if limits.blkio_weight and not 10 <= limits.blkio_weight <= 1000:
        raise BAD_REQUEST(cause="Range of blkio weight is from 10 to 1000")
    for ulimit in limits.ulimits or []:
        if ulimit.hard != -1 and (ulimit.soft == -1 or ulimit.soft > ulimit.hard):
            raise BAD_REQUEST(
                cause=f"ulimit soft limit must be less than or equal to hard limit: {ulimit.soft} > {ulimit.hard}"
            )


def _check_cpu(limits: Resources) -> None:
    if limits.nano_cpus and (limits.cpu_period or limits.cpu_quota):
        which = "CPU Period" if limits.cpu_period else "CPU Quota"
        raise CONFLICTING_OPTIONS(cause=f"Nano CPUs and {which} cannot both be set")
    if limits.nano_cpus < 0:
        raise BAD_REQUEST(cause="range of CPUs is from 0.01 upwards")
    if limits.cpu_shares < 0:
        raise BAD_REQUEST(cause=f"invalid CPU shares ({limits.cpu_shares}): value must be a positive integer")
    if limits.cpu_period and not 1_000 <= limits.cpu_period <= 1_000_000:
        raise BAD_REQUEST(cause="CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < limits.cpu_quota < 1_000:
        raise BAD_REQUEST(cause="CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for what, value in (("cpuset cpus", limits.cpuset_cpus), ("cpuset mems", limits.cpuset_mems)):
        if value and not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", value):
            raise BAD_REQUEST(cause=f"Invalid value {value} for {what}")
