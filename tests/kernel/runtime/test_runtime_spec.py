"""What the planner wishes for is what a process in the container finds."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess

import pytest

from dockyard.kernel import caps
from dockyard.model import ContainerConfig, DeviceMapping, HostConfig, Ulimit, new_id
from dockyard.runtime import Namespaces, ResolvedMount, SpecRequest, User, host_devices, make_spec, resolve_devices

pytestmark = pytest.mark.root


@pytest.fixture
def run(runtime, host_facts, rootfs, tmp_path):
    async def run(script: str, host: HostConfig | None = None, config: ContainerConfig | None = None, **more) -> str:
        container = new_id()
        bundle = tmp_path / "dockyard-test" / container
        bundle.mkdir(parents=True)
        request = SpecRequest(
            id=container, rootfs=str(rootfs), config=config or ContainerConfig(),
            host=(host or HostConfig()).replace(readonly_rootfs=True), argv=("/bin/sh", "-c", script),
            env=("PATH=/bin",), hostname="box", cgroup_parent="/dockyard-test", **more,
        )  # fmt: skip
        plan = make_spec(request, host_facts)
        await runtime.create(container, str(bundle), plan.spec, log_path=str(bundle / "log"))
        await runtime.start(container)
        ended = await asyncio.wait_for(runtime.wait_exit(container), 20)
        await runtime.delete(container)
        text = (bundle / "log").read_text()
        return "\n".join(line.split(" ", 3)[3] for line in text.splitlines()) + f"\n{ended.code}"

    return run


async def test_identity_and_environment(run):
    out = await run(
        "id -u; id -g; hostname; pwd; env; grep Cap /proc/self/status", user=User(1000, 5, (7,), "/home"), cwd="/tmp"
    )
    lines = out.splitlines()
    assert lines[:4] == ["1000", "5", "box", "/tmp"]
    assert {"PATH=/bin", "HOSTNAME=box", "HOME=/home"} <= set(lines)
    assert "CapInh:\t0000000000000000" in lines
    assert "CapEff:\t0000000000000000" in lines


async def test_defaults_protect_the_host(run):
    out = await run(
        "echo x > /proc/sys/kernel/hostname; grep -E 'Seccomp:|CapBnd|NoNew' /proc/self/status;"
        "mount -t tmpfs none /tmp; df /dev/shm; ls /dev"
    )
    assert "Seccomp:\t2" in out
    assert "CapBnd:\t00000000a80425fb" in out
    assert "Read-only file system" in out
    assert "65536" in out
    assert {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "mqueue", "fd", "stdin"} <= set(
        out.split()
    )


async def test_limits(run, host_facts):
    wish = HostConfig(
        memory=32 << 20, pids_limit=20, cpu_shares=512, nano_cpus=500_000_000, oom_score_adj=100,
        ulimits=[Ulimit(name="nofile", soft=100, hard=10_000_000)],
    )  # fmt: skip
    out = await run("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us", wish)  # fmt: skip
    lines = out.splitlines()
    hard = 10_000_000 if host_facts.can_raise_limits else host_facts.rlimits["RLIMIT_NOFILE"][1]
    assert lines[:3] == ["100", str(hard), "100"]
    if not host_facts.cgroup.unified:
        assert lines[3:7] == [str(32 << 20), str(64 << 20), "20", "50000"]


async def test_out_of_memory_is_told(runtime, box):
    container, bundle, spec = box.spec("/bin/sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=200M count=1")
    spec["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    spec["linux"]["devices"] = [{"path": "/dev/zero", "type": "c", "major": 1, "minor": 5}]
    await runtime.create(container, bundle, spec)
    await runtime.start(container)
    ended = await asyncio.wait_for(runtime.wait_exit(container), 30)
    assert ended.code == 137
    assert ended.oom_killed


async def test_mounts(run, tmp_path):
    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/file").write_text("hello\n")
    out = await run(
        "cat /tmp/file; echo x > /tmp/file; echo y > /run/z && cat /run/z; grep ' /tmp ' /proc/self/mountinfo",
        HostConfig(tmpfs={"/root": "size=64k"}),
        mounts=(
            ResolvedMount(str(tmp_path / "src"), "/tmp", ("ro",)),
            ResolvedMount(str(tmp_path / "src/sub"), "/sys/fs/cgroup"),
        ),
    )
    assert out.startswith("hello\n")
    assert "Read-only file system" in out
    assert (tmp_path / "src/file").read_text() == "hello\n"


@pytest.fixture
def guarded(tmp_path):
    """A mount of the host that forbids writing, programs, devices and set-uid."""
    place = tmp_path / "guarded"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,noexec,nodev,nosuid", "none", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


async def test_a_bind_gives_no_more_than_its_source(run, guarded):
    out = await run(
        "echo x > /tmp/x; grep ' /tmp ' /proc/self/mountinfo | cut -d' ' -f6",
        mounts=(ResolvedMount(str(guarded), "/tmp"),),
    )
    assert "Read-only file system" in out
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(out.splitlines()[-2].split(","))


async def test_privileged_and_devices(run, host_facts):
    out = await run("grep CapBnd /proc/self/status; echo box2 > /proc/sys/kernel/hostname; hostname; ls /dev", HostConfig(privileged=True), host_devices=host_devices())  # fmt: skip
    mask = sum(1 << bit for bit, name in enumerate(caps.NAMES) if name in host_facts.capabilities)
    assert f"CapBnd:\t{mask:016x}" in out
    assert "box2" in out
    assert "kmsg" in out
    device = resolve_devices([DeviceMapping(path_on_host="/dev/kmsg", path_in_container="/dev/my")])
    assert "crw" in await run("ls -l /dev/my", devices=device)


async def test_init_reaps_and_passes_the_exit_code(run, host_facts):
    if not host_facts.init_path:
        pytest.skip("no static init program on this host")
    out = await run("cat /proc/1/comm; exit 5", init=True)
    assert out.splitlines()[-2:] == [os.path.basename("docker-init"), "5"]


async def test_host_namespaces(run, host_facts):
    out = await run("readlink /proc/self/ns/net; hostname", namespaces=Namespaces(net="host", uts="host", ipc="host"))
    assert os.readlink("/proc/self/ns/net") in out
    assert os.uname().nodename in out


async def test_shared_pid_namespace_leaves_nobody_behind(run):
    await run("sleep 1000 & exit 0", namespaces=Namespaces(pid="host"))


def test_facts_tell_the_kernel(host_facts):
    assert host_facts.runtime.works
    assert host_facts.cgroup.controllers
    assert dataclasses.replace(host_facts) == host_facts
