"""Limits that containers run into: memory, processes, files, CPU time, and host knobs they need."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dockyard.doctor.finding import Confidence, Evidence, Finding, Fix, Object, Severity
from dockyard.doctor.rule import Rule, finding
from dockyard.doctor.view import View

HUGE_NOFILE = 1 << 24
THROTTLED_SHARE, THROTTLED_LEAST = 0.25, 50


def out_of_memory(view: View) -> Iterator[Finding]:
    for container in view.containers:
        limit = int(container.host_config.get("Memory") or 0)
        cgroup = view.facts.cgroups.get(container.id)
        kills = cgroup.oom_kills if cgroup else 0
        killed = bool(container.state.get("OOMKilled")) and not container.running
        if not killed and not kills:
            continue
        seen = [Evidence("api", "State.OOMKilled", str(bool(container.state.get("OOMKilled"))).lower(), "false")]
        seen += [Evidence("file", "memory cgroup oom_kill", str(kills), "0")] if kills else []
        seen += [Evidence("api", "HostConfig.Memory", f"{limit >> 20} MiB")] if limit else []
        line = _kernel_line(view, container.id)
        seen += [Evidence("log", "kernel log", line)] if line else []
        yield finding(
            "RES-01",
            "the memory limit was hit",
            container.object,
            f"{container.name} was killed (exit 137)" if killed else f"a process in {container.name} was killed",
            seen,
            severity=Severity.FAULT if killed else Severity.RISK,
            affects=[container.id],
            ruled_out={"CTR-11": "the kernel's kill came before any stop"} if killed else {},
            fix=Fix(
                "raise the limit above what it needs, or find the leak",
                [f"docker update --memory {max(limit * 2, 64 << 20)} --memory-swap -1 {container.name}"],
                risk="other containers have less",
            ),
            verify=f"docker stats --no-stream {container.name}",
        )


def _kernel_line(view: View, container_id: str) -> str:
    return next((line for line in reversed(view.facts.host.kernel_log) if container_id[:12] in line), "")


def host_out_of_memory(view: View) -> Iterator[Finding]:
    for container in view.containers:
        if container.running or container.exit_code != 137 or container.state.get("OOMKilled"):
            continue
        line = _kernel_line(view, container.id)
        if "CONSTRAINT_NONE" in line or ("Out of memory" in line and "Memory cgroup" not in line):
            yield finding(
                "RES-02",
                "the host ran out of memory",
                container.object,
                f"{container.name} was killed (exit 137) although it was within its own limit",
                [Evidence("log", "kernel log", line), Evidence("api", "State.OOMKilled", "false")],
                affects=[container.id],
                ruled_out={"RES-01": "the kernel names no limit", "CTR-11": "no stop precedes"},
                fix=Fix("set --memory for the big ones, or add memory"),
            )


def too_many_processes(view: View) -> Iterator[Finding]:
    for container in view.containers:
        cgroup = view.facts.cgroups.get(container.id)
        limit = int(container.host_config.get("PidsLimit") or 0)
        line = view.log_line(
            container, r"can't fork|cannot fork|resource temporarily unavailable|can't start new thread"
        )
        if cgroup is None:
            if not (limit > 0 and line):
                continue
            seen = [Evidence("api", "HostConfig.PidsLimit", str(limit)), Evidence("log", "its log", line)]
        else:
            full = cgroup.pids_limit > 0 and cgroup.pids_current >= cgroup.pids_limit
            # The count of refusals is never reset: below a limit that was raised since, they are history.
            outgrown = 0 < cgroup.pids_peak < cgroup.pids_limit
            if not full and (not cgroup.pids_refused or outgrown):
                continue
            text = f"{cgroup.pids_current} of {cgroup.pids_limit}, {cgroup.pids_refused} refused"
            seen = [Evidence("file", "pids cgroup", text, "below the limit, none refused")]
            seen += [Evidence("log", f"docker logs {container.name}", line)] if line else []
        yield finding(
            "RES-04",
            "the limit of processes is reached",
            container.object,
            f'{container.name} cannot make processes or threads ("Resource temporarily unavailable")',
            seen,
            affects=[container.id],
            fix=Fix(
                "raise the limit",
                [f"docker update --pids-limit {max(limit * 4, 100)} {container.name}"],
                [f"docker update --pids-limit {limit} {container.name}"],
                machine=limit > 0,
            ),
            verify=f"docker exec {container.name} true",
        )


_EMFILE = r"too many open files|no file descriptors available"


def too_many_files(view: View) -> Iterator[Finding]:
    for container in view.containers:
        line = view.log_line(container, _EMFILE)
        if not line and re.search(_EMFILE, container.error, re.IGNORECASE):
            line = container.error[:300]
        process = view.process(container)
        near = process is not None and process.fd_soft and process.fds >= 0.9 * process.fd_soft
        limits = [u for u in container.host_config.get("Ulimits") or [] if u.get("Name") == "nofile"]
        if not near and not (line and (limits or process is not None)):
            continue
        seen = [Evidence("log", f"log or State.Error of {container.name}", line)] if line else []
        if process is not None:
            seen.append(
                Evidence("process", f"fds of pid {process.pid}", f"{process.fds} of {process.fd_soft}", "below")
            )
        seen += [Evidence("api", "HostConfig.Ulimits nofile", str(limits[0].get("Soft")))] if limits else []
        yield finding(
            "RES-05",
            "the limit of open files is reached",
            container.object,
            f'{container.name} gets "Too many open files"',
            seen,
            severity=Severity.FAULT if line else Severity.RISK,
            affects=[container.id],
            fix=Fix("create it again with a higher --ulimit nofile=SOFT:HARD (1024:524288 is a good default)"),
        )


def huge_nofile(view: View) -> Iterator[Finding]:
    for container in view.running:
        process = view.process(container)
        if process is None or process.fd_soft <= HUGE_NOFILE:
            continue
        yield finding(
            "RES-06",
            "the limit of open files is absurdly high",
            container.object,
            "old daemons that close every possible descriptor need minutes or gigabytes to start",
            [Evidence("process", f"/proc/{process.pid}/limits Max open files", str(process.fd_soft), "1024:524288")],
            severity=Severity.RISK,
            affects=[container.id],
            fix=Fix("set default-ulimits nofile to 1024:524288 in daemon.json, or --ulimit for this container"),
        )


def max_map_count(view: View) -> Iterator[Finding]:
    for container in view.containers:
        line = view.log_line(container, r"vm\.max_map_count.*too low")
        value = int(view.facts.host.sysctls.get("vm.max_map_count", "0") or 0)
        match = re.search(r"at least \[?(\d+)", line)
        wanted = int(match[1]) if match else 262144
        if not line or not value or value >= wanted:
            continue
        yield finding(
            "RES-09",
            "vm.max_map_count of the host is too low",
            container.object,
            f"{container.name} refuses to start",
            [
                Evidence("log", f"docker logs {container.name}", line),
                Evidence("sysctl", "vm.max_map_count", str(value), f"{wanted} or more"),
            ],
            affects=[container.id],
            fix=Fix(
                "raise it on the host (it is not namespaced)",
                [f"sysctl -w vm.max_map_count={wanted}"],
                [f"sysctl -w vm.max_map_count={value}"],
                machine=True,
            ),
            verify="sysctl vm.max_map_count",
        )


def throttled(view: View) -> Iterator[Finding]:
    for container in view.running:
        cgroup = view.facts.cgroups.get(container.id)
        if cgroup is None or cgroup.throttled < THROTTLED_LEAST or not cgroup.periods:
            continue
        share = cgroup.throttled / cgroup.periods
        if share < THROTTLED_SHARE:
            continue
        yield finding(
            "RES-10",
            "the CPU quota slows it down",
            container.object,
            f"{container.name} was held back in {share:.0%} of its periods",
            [
                Evidence(
                    "file", "cpu.stat nr_throttled / nr_periods", f"{cgroup.throttled} / {cgroup.periods}", "below 25 %"
                )
            ],
            severity=Severity.RISK,
            affects=[container.id],
            fix=Fix("raise --cpus", [f"docker update --cpus 1 {container.name}"]),
        )


_SYSTEMD = (
    r"cgroup mountpoint does not exist|failed to mount cgroup|failed to mount API filesystems|"
    r"/sys/fs/cgroup.*(read-only|no such file|permission denied|not permitted)"
)


def cgroup_layout(view: View) -> Iterator[Finding]:
    """An init or engine in the container looks for a cgroup tree that this host does not show it."""
    for container in view.containers:
        line = view.log_line(container, _SYSTEMD)
        if not line or not view.facts.host.cgroup:
            continue
        yield finding(
            "RES-13",
            "the program in the container expects other cgroups",
            container.object,
            f"{container.name} does not come up",
            [
                Evidence("log", f"docker logs {container.name}", line),
                Evidence("file", "cgroup file systems of the host", view.facts.host.cgroup, "what the image was made for"),
            ],
            confidence=Confidence.LIKELY,
            affects=[container.id],
            fix=Fix("use an image whose init knows this layout (systemd 247 and later for v2), or --cgroupns private with "
                    "/sys/fs/cgroup mounted for it"),
            verify=f"docker start {container.name}",
        )  # fmt: skip


def limits_ignored(view: View) -> Iterator[Finding]:
    info = view.facts.engine.info
    wanted = {"MemoryLimit": "Memory", "PidsLimit": "PidsLimit", "CpuCfsQuota": "NanoCpus"}
    for flag, key in wanted.items():
        users = [c for c in view.containers if int(c.host_config.get(key) or 0) > 0]
        if info.get(flag) is not False or not users:
            continue
        yield finding(
            "RES-14",
            "a limit is ignored because its controller is missing",
            Object("host", flag),
            f"{', '.join(c.name for c in users[:5])}: {key} has no effect",
            [Evidence("api", f"GET /info {flag}", "false", "true")],
            affects=[container.id for container in users],
            fix=Fix("enable the cgroup controller (boot option, delegation) and start the engine again"),
        )


_API = ("containers", "cgroups")
_CAUSES = ("CTR-16", "CTR-17", "CMP-10", "CTR-13")
RULES = (
    Rule(
        "RES-01",
        "the memory limit was hit",
        "The kernel kills a process when its cgroup passes memory.max.",
        out_of_memory,
        ("containers",),
        causes=_CAUSES,
        lookalikes=("RES-02", "CTR-11"),
        messages=(r"\b137\b", r"oom", r"out of memory"),
        decides="State.OOMKilled and oom_kill of the memory cgroup",
    ),
    Rule(
        "RES-02",
        "the host ran out of memory",
        "With no limit hit, the kernel picks a process of the whole host.",
        host_out_of_memory,
        ("containers", "host"),
        causes=_CAUSES,
        lookalikes=("RES-01", "CTR-11"),
        messages=(r"\b137\b", r"out of memory"),
        decides="CONSTRAINT_NONE in the kernel's line",
    ),
    Rule(
        "RES-04",
        "the limit of processes is reached",
        "fork and clone answer EAGAIN at pids.max.",
        too_many_processes,
        _API,
        causes=_CAUSES,
        messages=(r"resource temporarily unavailable", r"can.?t start new thread", r"can.?t fork"),
        decides="pids.current against pids.max, pids.events",
    ),
    Rule(
        "RES-05",
        "the limit of open files is reached",
        "open, socket and accept answer EMFILE at RLIMIT_NOFILE.",
        too_many_files,
        ("containers", "processes", "logs"),
        causes=_CAUSES,
        messages=(r"too many open files", r"No file descriptors available"),
        decides="descriptors in use against the soft limit",
    ),
    Rule(
        "RES-06",
        "the limit of open files is absurdly high",
        "LimitNOFILE=infinity of the engine's unit gives containers 2^30; some programs loop over all of them.",
        huge_nofile,
        ("containers", "processes"),
        severity=Severity.RISK,
        messages=(r"100 ?% cpu",),
        decides="Max open files of PID 1",
    ),
    Rule(
        "RES-09",
        "vm.max_map_count of the host is too low",
        "Search engines map many files; the knob is the host's.",
        max_map_count,
        ("containers", "logs", "host"),
        causes=_CAUSES,
        messages=(r"max_map_count",),
        decides="sysctl vm.max_map_count",
    ),
    Rule(
        "RES-10",
        "the CPU quota slows it down",
        "CFS stops the whole cgroup for the rest of a period.",
        throttled,
        _API,
        severity=Severity.RISK,
        messages=(r"slow", r"throttl"),
        decides="nr_throttled in cpu.stat",
    ),
    Rule(
        "RES-13",
        "the program in the container expects other cgroups",
        "systemd, docker-in-docker and old JVMs read /sys/fs/cgroup; v1, v2 and hybrid hosts show different trees.",
        cgroup_layout,
        ("containers", "logs", "host"),
        causes=("CTR-16", "CMP-10", "SEC-04"),
        messages=(r"cgroup mountpoint does not exist", r"failed to mount (cgroup|API filesystems)"),
        decides="file system type of /sys/fs/cgroup, and what the image's init supports",
    ),
    Rule(
        "RES-14",
        "a limit is ignored because its controller is missing",
        "Without its cgroup controller a limit is only a wish; the engine warns once.",
        limits_ignored,
        ("containers",),
        messages=(r"kernel does not support", r"controller .* not (available|delegated)"),
        decides="GET /info",
    ),
)
