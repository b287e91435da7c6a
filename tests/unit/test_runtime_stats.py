"""Counters in Docker's form, and ps output."""

from __future__ import annotations

import pytest

from dockyard.errors import InvalidParameter
from dockyard.kernel.cgroup import Cgroups, probe, read_mounts
from dockyard.runtime.messages import exit_code_for, translate
from dockyard.runtime.stats import CpuSample, Sample, read_networks, sample, shape
from dockyard.runtime.top import filter_rows

NET = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0
"""


def test_networks():
    eth0 = read_networks(NET)["eth0"]
    assert (eth0["rx_bytes"], eth0["rx_dropped"], eth0["tx_packets"], eth0["tx_dropped"]) == (1000, 2, 20, 4)
    assert "lo" not in read_networks(NET)
    assert read_networks("") == {}


def test_v2_counters(tmp_path):
    group = tmp_path / "g"
    group.mkdir()
    for name, text in {
        "cpu.stat": "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\n"
        "nr_periods 2\nnr_throttled 1\nthrottled_usec 7\n",
        "memory.current": "4096\n",
        "memory.max": "max\n",
        "memory.stat": "anon 1024\ninactive_file 512\n",
        "pids.current": "3\n",
        "pids.max": "max\n",
        "io.stat": "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n",
    }.items():
        (group / name).write_text(text)
    found = sample(Cgroups("v2", {"": str(tmp_path)}, frozenset()), "/g", 0, 1 << 30)
    document = shape("id", "/n", found)
    assert document["cpu_stats"]["cpu_usage"]["total_usage"] == 5_000_000
    assert document["cpu_stats"]["throttling_data"] == {"periods": 2, "throttled_periods": 1, "throttled_time": 7000}
    assert document["memory_stats"] == {
        "usage": 4096, "stats": {"anon": 1024, "inactive_file": 512}, "limit": 1 << 30,
    }  # fmt: skip
    assert document["pids_stats"] == {"current": 3, "limit": (1 << 64) - 1}
    assert document["blkio_stats"]["io_service_bytes_recursive"] == [
        {"major": 254, "minor": 0, "op": "read", "value": 10},
        {"major": 254, "minor": 0, "op": "write", "value": 20},
    ]
    assert "system_cpu_usage" not in document["precpu_stats"]


def test_stopped_container_and_first_sample():
    stopped = shape("id", "/n", None)
    assert (stopped["read"], stopped["memory_stats"], stopped["pids_stats"]) == ("0001-01-01T00:00:00Z", {}, {})
    one = Sample(1, CpuSample(total=5, system=9, online=2, percpu=(2, 3)), {}, 1, 0)
    assert shape("id", "/n", one, one)["precpu_stats"]["cpu_usage"]["percpu_usage"] == [2, 3]


def test_ps_rows():
    text = "UID PID CMD\nroot 1 init x\nroot 20 sleep 1000 and more\nroot - thread\nroot 3 other\n"
    found = filter_rows(text, {20})
    assert found.titles == ["UID", "PID", "CMD"]
    assert found.processes == [["root", "20", "sleep 1000 and more"], ["root", "-", "thread"]]
    with pytest.raises(InvalidParameter, match="Couldn't find PID field"):
        filter_rows("UID CMD\n", {1})


@pytest.mark.parametrize(
    ("told", "ours", "code"),
    [
        ("executable file `x` not found in $PATH: No such file or directory", "executable file not found", 127),
        ("open executable: Permission denied", "permission denied", 126),
        ("runc create failed: something else", "runc create failed: something else", 128),
    ],
)  # fmt: skip
def test_runtimes_say_the_same(told, ours, code):
    assert ours in translate(told)
    assert exit_code_for(translate(told)) == code


@pytest.mark.parametrize(
    ("mountinfo", "roots"),
    [
        ("31 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate", {"": "/sys/fs/cgroup"}),
        (
            "32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
            "33 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
            "34 31 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
            {
                "cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
                "name=systemd": "/sys/fs/cgroup/systemd", "": "/sys/fs/cgroup/unified",
            },
        ),
    ],
)  # fmt: skip
def test_cgroup_mounts(mountinfo, roots):
    assert read_mounts(mountinfo) == roots


def test_this_host_has_some_layout():
    assert probe().layout in ("v1", "v2", "hybrid")
