"""What a container is asked to be: ContainerConfig and HostConfig (Engine API 1.51 definitions of those names).

Both are stored as they were asked for; what the host makes of them is decided in ``runtime.plan``.
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from dockyard.model.network import EndpointSettings as EndpointSettings
from dockyard.model.wire import Document


class HealthConfig(Document, frozen=True):
    """Times are nanoseconds; 0 means Docker's default (30 s, 30 s, 3, 0 s, 5 s)."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(Document, frozen=True):
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class RestartPolicy(Document, frozen=True):
    """``name``: "" or no, always, unless-stopped, on-failure; ours besides: unhealthy (restart when unhealthy)."""

    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(Document, frozen=True):
    type: str = ""
    config: dict[str, str] | None = None


class PortBinding(Document, frozen=True):
    host_ip: str = field(default="", name="HostIp")
    host_port: str = ""


class DeviceMapping(Document, frozen=True):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Document, frozen=True):
    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = None
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class ThrottleDevice(Document, frozen=True):
    path: str = ""
    rate: int = 0


class WeightDevice(Document, frozen=True):
    path: str = ""
    weight: int = 0


class Ulimit(Document, frozen=True):
    name: str = ""
    hard: int = 0
    soft: int = 0


class Mount(Document, frozen=True):
    """``type``: bind, volume, tmpfs, image, npipe, cluster. Options stay maps: each type reads its own."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: dict[str, Any] | None = None
    volume_options: dict[str, Any] | None = None
    image_options: dict[str, Any] | None = None
    tmpfs_options: dict[str, Any] | None = None


class Resources(Document, frozen=True):
    """Limits; also the body of ``POST /containers/{id}/update``. Bytes, microseconds, shares."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = field(default=None, name="BlkioDeviceReadIOps")
    blkio_device_write_iops: list[ThrottleDevice] | None = field(default=None, name="BlkioDeviceWriteIOps")
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory: int = 0
    kernel_memory_tcp: int = field(default=0, name="KernelMemoryTCP")
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = field(default=0, name="IOMaximumBandwidth")


class HostConfig(Resources, frozen=True):
    binds: list[str] | None = None
    container_id_file: str = field(default="", name="ContainerIDFile")
    log_config: LogConfig = LogConfig()
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] | None = None
    annotations: dict[str, str] | None = None
    cap_add: list[str] | str | None = None
    cap_drop: list[str] | str | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = field(default=None, name="Dns")
    dns_options: list[str] | None = field(default=None, name="DnsOptions")
    dns_search: list[str] | None = field(default=None, name="DnsSearch")
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    init: bool | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    mounts: list[Mount] | None = None
