"""Looking at a live container: state, top, stats, and changed limits."""

from __future__ import annotations

import asyncio

import pytest

from dockyard.errors import Conflict, InvalidParameter
from dockyard.kernel import cgroup
from dockyard.model.container import Resources
from dockyard.runtime import make_update, shape

pytestmark = pytest.mark.root


async def test_state(runtime, box):
    container, bundle, spec = box.spec("/bin/sh", "-c", "read x; exit 2")
    created = await runtime.create(container, bundle, spec, open_stdin=True, stdin_once=True)
    assert (runtime.state(container).status, runtime.state(container).pid) == ("created", created.pid)
    await runtime.start(container)
    assert runtime.state(container).status == "running"
    await runtime.pause(container)
    assert runtime.state(container).status == "paused"
    await runtime.resume(container)
    client = runtime.attach(container, stdin=True)
    await client.write_eof()
    await asyncio.wait_for(runtime.wait_exit(container), 10)
    assert (runtime.state(container).status, runtime.state(container).exit.code) == ("stopped", 2)


async def test_top(runtime, box):
    container, bundle, spec = box.spec("/bin/sh", "-c", "sleep 1001 & sleep 1002 & echo up; wait")
    await runtime.create(container, bundle, spec)
    client = runtime.attach(container)
    await runtime.start(container)
    await asyncio.wait_for(anext(client.frames()), 10)
    found = await runtime.top(container)
    assert found.titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert {"sleep 1001", "sleep 1002"} <= {row[-1] for row in found.processes}
    assert len(found.processes) == 3
    assert (await runtime.top(container, "-o pid,comm")).titles == ["PID", "COMMAND"]
    with pytest.raises(InvalidParameter, match="Couldn't find PID field in ps output"):
        await runtime.top(container, "-o comm")
    with pytest.raises(InvalidParameter, match="error running ps"):
        await runtime.top(container, "--nonsense")
    await client.close()
    await runtime.kill(container)
    await asyncio.wait_for(runtime.wait_exit(container), 10)
    with pytest.raises(Conflict):
        await runtime.top(container)


async def test_stats(runtime, box):
    container, bundle, spec = box.spec("/bin/sh", "-c", "seq 20000 >/dev/null; echo done; read x")
    await runtime.create(container, bundle, spec, open_stdin=True)
    first = runtime.sample(container)
    client = runtime.attach(container)
    await runtime.start(container)
    await anext(client.frames())
    second = runtime.sample(container)
    document = shape(container, "/name", second, first)
    assert document["cpu_stats"]["cpu_usage"]["total_usage"] > document["precpu_stats"]["cpu_usage"]["total_usage"]
    assert document["cpu_stats"]["system_cpu_usage"] >= document["precpu_stats"]["system_cpu_usage"] > 0
    assert 0 < document["memory_stats"]["usage"] < document["memory_stats"]["limit"]
    assert document["pids_stats"]["current"] == 1
    assert document["cpu_stats"]["online_cpus"] > 0
    await client.close()


async def test_update(runtime, box, host_facts):
    container, bundle, spec = box.spec("/bin/sleep", "1000")
    await runtime.create(container, bundle, spec)
    await runtime.start(container)
    wish = Resources(memory=64 << 20, cpu_shares=512, pids_limit=33, nano_cpus=500_000_000)
    resources, warnings = make_update(wish, host_facts, {})
    assert warnings == []
    await runtime.update(container, resources)
    sample = runtime.sample(container)
    assert (sample.memory["limit"], sample.pids_limit) == (64 << 20, 33)
    if not host_facts.cgroup.unified:
        group = f"{host_facts.cgroup.roots['cpu']}/dockyard-test/{container}"
        assert cgroup.read_int(f"{group}/cpu.shares") == 512
        assert cgroup.read_int(f"{group}/cpu.cfs_quota_us") == 50_000
    await runtime.update(container, make_update(Resources(memory=128 << 20, pids_limit=-1), host_facts, {})[0])
    assert runtime.sample(container).memory["limit"] == 128 << 20
