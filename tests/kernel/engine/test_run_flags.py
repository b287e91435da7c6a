"""Every flag of ``docker run`` that means something to the kernel, seen from inside a container by docker's own CLI."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockyard.kernel import caps, cgroup
from dockyard.testing.engines import PrivateEngine, private_engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
LIMIT = 30.0
CGROUPS = cgroup.probe()


@pytest.fixture(scope="module")
def engine(folder: Path, archive: Path) -> Iterator[PrivateEngine]:
    with private_engine("dockyard", folder / "e") as made:
        good(made, "load", "-q", "-i", str(archive))
        yield made


def good(engine: PrivateEngine, *words: str) -> str:
    done = engine.docker(*words)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def inspect(engine: PrivateEngine, name: str) -> dict:
    return json.loads(good(engine, "inspect", name))[0]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


@pytest.fixture
def named(engine: PrivateEngine) -> Iterator[Callable[..., str]]:
    """Starts a container that is removed afterwards; its name."""
    made: list[str] = []

    def start(*options: str, image: str = "busybox", command: tuple[str, ...] = ("sleep", "1000")) -> str:
        made.append(f"c{len(made)}-{os.getpid()}")
        good(engine, "run", "-d", "--name", made[-1], *options, image, *command)
        return made[-1]

    yield start
    if made:
        engine.docker("rm", "-fv", *made)


SEEN = [
    (("--hostname", "box"), "hostname", "box"),
    (("--hostname", "my_app"), "hostname", "my_app"),
    (("--domainname", "example.org"), "cat /proc/sys/kernel/domainname", "example.org"),
    (("--user", "70:71"), "id -u; id -g", "70 71"),
    (("--user", "postgres"), "id -un", "postgres"),
    (("--group-add", "1234"), "id -G", "0 1234"),
    (("--workdir", "/made/here"), "pwd", "/made/here"),
    (("--env", "A=b c"), 'echo "$A"', "b c"),
    (("--read-only",), "touch /x 2>/dev/null || echo refused", "refused"),
    (("--read-only", "--tmpfs", "/t:size=64k"), "touch /t/x && df -k /t | tail -1 | awk '{print $2}'", "64"),
    (("--tmpfs", "/t:mode=700,uid=5"), "stat -c '%a %u' /t", "700 5"),
    (("--mount", "type=tmpfs,dst=/t,tmpfs-size=65536,tmpfs-mode=0711"), "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'", "711 64"),
    (("--shm-size", "8m"), "df -k /dev/shm | tail -1 | awk '{print $2}'", "8192"),
    (("--ulimit", "nofile=111:222", "--ulimit", "core=0"), "ulimit -n; ulimit -Hn; ulimit -c", "111 222 0"),
    (("--cap-drop", "ALL"), "grep CapEff /proc/self/status | awk '{print $2}'", "0000000000000000"),
    (("--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE"), "grep CapEff /proc/self/status | awk '{print $2}'", "0000000000000400"),
    ((), "grep CapInh /proc/self/status | awk '{print $2}'", "0000000000000000"),
    (("--cap-add", "NET_ADMIN"), "ip link set lo mtu 1234 && cat /sys/class/net/lo/mtu", "1234"),
    ((), "ip link set lo mtu 1234 2>/dev/null || echo refused", "refused"),
    (("--device", "/dev/fuse:/dev/other:r"), "ls /dev/other; echo x 2>/dev/null >/dev/other || echo refused", "/dev/other refused"),
    ((), "ls /dev/fuse 2>/dev/null || echo none", "none"),
    (("--security-opt", "no-new-privileges"), "grep NoNewPrivs /proc/self/status | awk '{print $2}'", "1"),
    (("--security-opt", "seccomp=unconfined"), "grep Seccomp: /proc/self/status | awk '{print $2}'", "0"),
    ((), "grep Seccomp: /proc/self/status | awk '{print $2}'", "2"),
    ((), "unshare -m true 2>/dev/null || echo refused", "refused"),
    ((), "wc -c < /proc/timer_list 2>/dev/null; wc -c < /proc/keys", "0 0"),
    ((), "echo 1 2>/dev/null > /proc/sys/vm/swappiness || echo refused; echo h 2>/dev/null > /proc/sysrq-trigger || echo refused", "refused refused"),
    (("--security-opt", "systempaths=unconfined"), "mount | grep -c ' on /proc/[a-z]'", "0"),
    (("--sysctl", "net.core.somaxconn=77"), "cat /proc/sys/net/core/somaxconn", "77"),
    (("--sysctl", "kernel.msgmax=4096"), "cat /proc/sys/kernel/msgmax", "4096"),
    (("--pids-limit", "9"), "i=0; while [ $i -lt 20 ]; do sleep 3 2>/dev/null & i=$((i+1)); done 2>&1 | grep -c fork", None),
    (("--oom-score-adj", "321"), "cat /proc/self/oom_score_adj", "321"),
    (("--add-host", "db:10.1.2.3"), "grep -w db /etc/hosts | tr '\\t' ' '", "10.1.2.3 db"),
    (("--dns", "10.9.8.7", "--dns-search", "s.example", "--dns-option", "ndots:3"), "grep -v '^#' /etc/resolv.conf | sort", "nameserver 10.9.8.7 options ndots:3 search s.example"),
    (("--mac-address", "02:11:22:33:44:55"), "cat /sys/class/net/eth0/address", "02:11:22:33:44:55"),
    (("--network", "none"), "ls /sys/class/net", "lo"),
    (("--ip", "172.17.0.200"), "true", None),
    (("--cgroupns", "private"), "head -1 /proc/self/cgroup | cut -d: -f3", "/"),
    (("--entrypoint", "/bin/echo"), "-n said", None),
    (("--stop-signal", "INT", "--label", "a=b"), "true", ""),
    (("--init",), "readlink /proc/1/exe", "/sbin/docker-init"),
    (("--no-healthcheck",), "true", ""),
    (("--ipc", "none"), "ls /dev/shm 2>/dev/null | wc -l; grep -c ' /dev/shm ' /proc/mounts", "0 0"),
    (("--annotation", "a=b"), "echo ran", "ran"),
    (("--platform", "linux/amd64") if os.uname().machine == "x86_64" else (), "echo ran", "ran"),
]  # fmt: skip


@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize(("options", "script", "wanted"), [row for row in SEEN if row[2] is not None], ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "")
def test_what_a_container_sees(engine: PrivateEngine, runtime: str, options: tuple[str, ...], script: str, wanted: str) -> None:
    done = engine.docker("run", "--rm", "--runtime", runtime, *options, "busybox", "sh", "-c", script)
    assert " ".join(done.stdout.split()) == wanted, done.stderr
    assert done.stderr == ""


LIMITS = [
    (("--memory", "32m"), "memory", {"memory.limit_in_bytes": "33554432", "memory.max": "33554432"}),
    (("--memory", "32m", "--memory-reservation", "16m"), "memory", {"memory.soft_limit_in_bytes": "16777216", "memory.low": "16777216"}),
    (("--pids-limit", "9"), "pids", {"pids.max": "9"}),
    (("--cpu-shares", "512"), "cpu", {"cpu.shares": "512", "cpu.weight": "59"}),
    (("--cpus", "0.5"), "cpu", {"cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000"}),
    (("--cpu-period", "50000", "--cpu-quota", "25000"), "cpu", {"cpu.cfs_quota_us": "25000", "cpu.max": "25000 50000"}),
    (("--cpuset-cpus", "0"), "cpuset", {"cpuset.cpus": "0"}),
]  # fmt: skip


@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize(("options", "controller", "files"), LIMITS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_limits_reach_the_control_group(engine: PrivateEngine, named, runtime: str, options: tuple[str, ...], controller: str, files: dict[str, str]) -> None:
    if controller not in CGROUPS.controllers:
        pytest.skip(f"this host has no {controller} controller")
    name = named("--runtime", runtime, *options)
    assert _limit(engine, name, controller, files) in files.values()


def _limit(engine: PrivateEngine, name: str, controller: str, files: dict[str, str]) -> str:
    directory = Path(CGROUPS.path(controller, f"/dockyard/{inspect(engine, name)['Id']}") or "")
    return next((directory / file).read_text().strip() for file in files if (directory / file).exists())


def test_limits_of_a_live_container_change(engine: PrivateEngine, named) -> None:
    name = named("--memory", "64m", "--pids-limit", "50")
    good(engine, "update", "--memory", "32m", "--memory-swap", "64m", "--pids-limit", "9", "--restart", "always", name)
    if "pids" in CGROUPS.controllers:
        assert _limit(engine, name, "pids", {"pids.max": ""}) == "9"
    if "memory" in CGROUPS.controllers:
        assert _limit(engine, name, "memory", {"memory.limit_in_bytes": "", "memory.max": ""}) == "33554432"
    host = inspect(engine, name)["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["RestartPolicy"]["Name"]) == (32 << 20, 9, "always")


def test_a_device_cgroup_rule(engine: PrivateEngine) -> None:
    """mknod is allowed by default, opening the node only by the rule."""
    script = "mknod /n c 10 229 && (: < /n) 2>&1 | grep -o 'not permitted'; echo end"
    assert good(engine, "run", "--rm", "busybox", "sh", "-c", script).split() == ["not", "permitted", "end"]
    assert good(engine, "run", "--rm", "--device-cgroup-rule", "c 10:229 rmw", "busybox", "sh", "-c", script).split() == ["end"]


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_privileged_has_what_the_host_has(engine: PrivateEngine, runtime: str) -> None:
    script = "grep CapEff /proc/self/status | awk '{print $2}'; grep Seccomp: /proc/self/status | awk '{print $2}'; ls -d /dev/fuse; mount -t tmpfs x /mnt && echo mounted"
    effective, seccomp, *rest = good(engine, "run", "--rm", "--runtime", runtime, "--privileged", "busybox", "sh", "-c", script).split()
    own = int(next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("CapPrm")).split()[1], 16)
    assert int(effective, 16) == own, "all that the daemon has, and no more"
    assert (seccomp, rest[-1]) == ("0", "mounted")
    assert caps.permitted()


def test_namespaces_of_the_host(engine: PrivateEngine) -> None:
    for kind, flag in (("pid", "--pid"), ("ipc", "--ipc"), ("uts", "--uts"), ("net", "--network"), ("cgroup", "--cgroupns")):
        seen = good(engine, "run", "--rm", flag, "host", "busybox", "readlink", f"/proc/self/ns/{kind}")
        assert seen == os.readlink(f"/proc/{engine.process.pid}/ns/{kind}"), kind
        if kind not in ("cgroup",):
            assert good(engine, "run", "--rm", "busybox", "readlink", f"/proc/self/ns/{kind}") != seen


def test_namespaces_of_another_container(engine: PrivateEngine, named) -> None:
    first = named("--ipc", "shareable", "--hostname", "first")
    good(engine, "exec", first, "sh", "-c", "echo here > /dev/shm/x")
    joined = ("--pid", f"container:{first}", "--ipc", f"container:{first}", "--network", f"container:{first}")
    script = "cat /dev/shm/x; ps | grep -v grep | grep -c 'sleep 1000'; hostname"
    assert good(engine, "run", "--rm", *joined, "busybox", "sh", "-c", script).split()[:2] == ["here", "1"]
    private = named()
    done = engine.docker("run", "--rm", "--ipc", f"container:{private}", "busybox", "true")
    assert done.returncode == 125
    assert "non-shareable IPC" in done.stderr


def test_volumes_from_and_every_kind_of_mount(engine: PrivateEngine, named, folder: Path) -> None:
    shared = folder / "bound"
    (shared / "below").mkdir(parents=True)
    (shared / "file").write_text("bound\n")
    good(engine, "volume", "create", "kept")
    good(engine, "run", "--rm", "-v", "kept:/v", "busybox", "sh", "-c", "mkdir -p /v/sub && echo deep > /v/sub/f")
    first = named("-v", f"{shared}:/b:ro", "-v", "kept:/v", "-v", "/anonymous")
    script = "cat /b/file; touch /b/x 2>/dev/null || echo readonly; cat /v/sub/f; touch /anonymous/y && echo written"
    assert good(engine, "run", "--rm", "--volumes-from", first, "busybox", "sh", "-c", script).split() == ["bound", "readonly", "deep", "written"]
    done = good(engine, "run", "--rm", "--volumes-from", f"{first}:ro", "busybox", "sh", "-c", "touch /anonymous/z 2>/dev/null || echo readonly")
    assert done == "readonly"
    mounts = (
        "--mount", f"type=bind,src={shared},dst=/b,readonly", "--mount", "type=volume,src=kept,dst=/v,volume-subpath=sub",
        "--mount", "type=tmpfs,dst=/t", "--mount", "type=image,src=hello-world,dst=/i", "--mount", "type=volume,dst=/new",
    )  # fmt: skip
    script = "cat /b/file /v/f; touch /b/x 2>/dev/null || echo readonly; ls /i/bin | tail -1; for d in /t /new; do touch $d/x && echo ok; done"
    assert good(engine, "run", "--rm", *mounts, "busybox", "sh", "-c", script).split() == ["bound", "deep", "readonly", "echo", "ok", "ok"]
    done = engine.docker("run", "--rm", "--mount", f"type=bind,src={folder}/nothing,dst=/b", "busybox", "true")
    assert done.returncode == 125
    assert "bind source path does not exist" in done.stderr


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_propagation_of_binds(engine: PrivateEngine, named, folder: Path, runtime: str) -> None:
    """A mount that is made below a bind later: rslave sees it, rprivate does not; rshared gives it back, too."""
    source = folder / f"shared-{runtime}"
    for name in ("below", "back"):
        (source / name).mkdir(parents=True)
    subprocess.run(engine.inside("sh", "-c", f"mount --bind {source} {source} && mount --make-shared {source}"), check=True, timeout=20)
    slave, private = named("--runtime", runtime, "-v", f"{source}:/m:rslave"), named("--runtime", runtime, "-v", f"{source}:/m")
    both = named("--runtime", runtime, "--privileged", "-v", f"{source}:/m:rshared")
    subprocess.run(engine.inside("mount", "-t", "tmpfs", "late", f"{source}/below"), check=True, timeout=20)
    try:
        assert "late" in good(engine, "exec", slave, "cat", "/proc/mounts")
        assert "late" not in good(engine, "exec", private, "cat", "/proc/mounts")
        good(engine, "exec", "--privileged", both, "mount", "-t", "tmpfs", "given", "/m/back")
        assert "given" in Path(f"/proc/{engine.process.pid}/mounts").read_text()
        assert "given" in good(engine, "exec", slave, "cat", "/proc/mounts")
        for tree in Path("/sys/fs/cgroup").iterdir():
            assert any(tree.iterdir()), "the host's control groups are still there"
    finally:
        subprocess.run(engine.inside("umount", "-l", f"{source}/below", f"{source}/back", f"{source}"), check=False, timeout=20)


def test_a_link_gives_names_and_variables(engine: PrivateEngine, named) -> None:
    target = named("-e", "SECRET=x", "--expose", "5432")
    script = "grep -cw db /etc/hosts; ping -c 1 -W 3 db > /dev/null && echo reached; env | grep -E '^DB_(PORT|ENV_SECRET)=' | sort"
    found = good(engine, "run", "--rm", "--link", f"{target}:db", "busybox", "sh", "-c", script).split()
    assert found[:2] == ["1", "reached"]
    assert found[2] == "DB_ENV_SECRET=x"
    assert found[3].startswith("DB_PORT=tcp://")


def test_files_of_the_client(engine: PrivateEngine, folder: Path) -> None:
    cid, variables = folder / "cid", folder / "variables"
    variables.write_text("# comment\nA=1\nB=two words\nHOME\n")
    told = good(engine, "run", "--rm", "--cidfile", str(cid), "--env-file", str(variables), "busybox", "sh", "-c", 'echo "$A-$B"; cat /etc/hostname')
    assert told.split("\n") == ["1-two words", cid.read_text()[:12]]


def test_restart_policies(engine: PrivateEngine, named) -> None:
    thrice = named("--restart", "on-failure:2", command=("sh", "-c", "echo ran; exit 7"))
    until(lambda: inspect(engine, thrice)["State"]["Status"] == "exited" and inspect(engine, thrice)["RestartCount"] == 2)
    assert good(engine, "logs", thrice).split() == ["ran"] * 3
    once = named("--restart", "on-failure", command=("sh", "-c", "exit 0"))
    until(lambda: inspect(engine, once)["State"]["Status"] == "exited")
    assert inspect(engine, once)["RestartCount"] == 0
    again = named("--restart", "always", command=("sh", "-c", "sleep 0.2"))
    until(lambda: inspect(engine, again)["RestartCount"] >= 2)
    good(engine, "stop", "-t", "0", again)
    assert inspect(engine, again)["State"]["Status"] == "exited"


def test_a_health_check_changes_its_mind(engine: PrivateEngine, named) -> None:
    check = ("--health-cmd", "test -e /well", "--health-interval", "200ms", "--health-retries", "2", "--health-start-period", "0s")
    name = named(*check)
    until(lambda: inspect(engine, name)["State"]["Health"]["Status"] == "unhealthy")
    good(engine, "exec", name, "touch", "/well")
    until(lambda: inspect(engine, name)["State"]["Health"]["Status"] == "healthy")
    assert inspect(engine, name)["State"]["Health"]["Log"][0]["ExitCode"] in (0, 1)


def test_pause_rename_top_stats_and_stop(engine: PrivateEngine, named) -> None:
    name = named("--stop-signal", "USR1", command=("sh", "-c", "trap 'echo heard; exit 4' USR1; while :; do sleep 0.1; done"))
    good(engine, "pause", name)
    assert inspect(engine, name)["State"]["Status"] == "paused"
    assert engine.docker("exec", name, "true").returncode == 1
    good(engine, "unpause", name)
    good(engine, "rename", name, f"{name}-new")
    try:
        assert "trap" in good(engine, "top", f"{name}-new")
        row = json.loads(good(engine, "stats", "--no-stream", "--format", "json", f"{name}-new"))
        assert (row["Name"], row["PIDs"] > "0") == (f"{name}-new", True)
        good(engine, "stop", f"{name}-new")
        assert inspect(engine, f"{name}-new")["State"]["ExitCode"] == 4
        assert "heard" in good(engine, "logs", f"{name}-new")
    finally:
        engine.docker("rename", f"{name}-new", name)


def test_out_of_memory_is_told(engine: PrivateEngine, named) -> None:
    if "memory" not in CGROUPS.controllers:
        pytest.skip("this host has no memory controller")
    name = named("--memory", "8m", command=("sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1"))
    until(lambda: not inspect(engine, name)["State"]["Running"])
    state = inspect(engine, name)["State"]
    assert state["OOMKilled"], state
    assert "OOMKilled" in json.dumps(state)


WRITER = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); [ $((i % 100)) -eq 0 ] && sleep 0.1; done"
"""Slowly enough for files of 10 kB: a turn takes the engine a moment."""


def test_logs_turn_and_can_be_cut(engine: PrivateEngine, named) -> None:
    name = named("--log-opt", "max-size=10k", "--log-opt", "max-file=2", command=("sh", "-c", WRITER))
    until(lambda: not inspect(engine, name)["State"]["Running"])
    lines = good(engine, "logs", name).splitlines()
    assert lines[-1] == "line 1999"
    assert 100 < len(lines) < 2000, "the oldest are gone"
    assert good(engine, "logs", "--tail", "2", name).splitlines() == ["line 1998", "line 1999"]
    assert len(good(engine, "logs", "-t", "--tail", "1", name).split()[0]) == len("2026-01-01T00:00:00.000000000Z")
    silent = named("--log-driver", "none", command=("echo", "x"))
    assert "configured logging driver does not support reading" in engine.docker("logs", silent).stderr


def test_wait_for_each_condition(engine: PrivateEngine) -> None:
    import urllib.parse

    from dockyard.client import Client

    with Client(engine.host, timeout=LIMIT) as client:
        made = client.request("POST", "/containers/create", {}, {"Image": "busybox", "Cmd": ["sh", "-c", "exit 6"], "HostConfig": {"AutoRemove": True}})["Id"]
        assert client.request("POST", f"/containers/{made}/wait", {"condition": "not-running"})["StatusCode"] == 0, "it does not run yet"
        answers = [client.open("POST", f"/containers/{made}/wait", {"condition": urllib.parse.quote(name)}) for name in ("next-exit", "removed")]
        client.request("POST", f"/containers/{made}/start")
        for answer in answers:
            answer.settimeout(LIMIT)
            assert (answer.json() or {})["StatusCode"] == 6
            answer.close()


def test_prunes_take_what_is_not_used(engine: PrivateEngine, named) -> None:
    kept = named("-v", "used:/v")
    good(engine, "create", "--name", "unused", "--label", "x=1", "busybox")
    good(engine, "volume", "create", "idle")
    good(engine, "network", "create", "idle")
    good(engine, "container", "prune", "-f", "--filter", "label=x=1")
    good(engine, "volume", "prune", "-af")
    good(engine, "network", "prune", "-f")
    assert kept in good(engine, "ps", "--format", "{{.Names}}")
    assert "unused" not in good(engine, "ps", "-a", "--format", "{{.Names}}")
    assert good(engine, "volume", "ls", "-q").split().count("idle") == 0
    assert "used" in good(engine, "volume", "ls", "-q").split()
    assert "idle" not in good(engine, "network", "ls", "--format", "{{.Name}}").split()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--memory", "1m"), "Minimum memory limit allowed is 6MB"),
        (("--gpus", "all"), "could not select device driver"),
        (("--cap-add", "NOTHING"), "NOTHING"),
        (("--sysctl", "kernel.nothing=1"), "is not allowed"),
        (("--security-opt", "nothing=1"), "nothing"),
        (("--network", "host", "--sysctl", "net.core.somaxconn=77"), "not allowed in host network namespace"),
        (("--user", "nobodyhere"), "unable to find user nobodyhere"),
        (("--runtime", "kata"), "unknown or invalid runtime name: kata"),
        (("--ipc", "container:none"), "No such container: none"),
        (("--pid", "container:none"), "No such container: none"),
        (("--network", "container:none"), "No such container: none"),
        (("--log-driver", "splunk"), "no log driver named 'splunk' is registered"),
        (("--volume-driver", "nfs", "-v", "x1:/v"), "plugin"),
        (("--cpuset-cpus", "999"), "999"),
        (("--blkio-weight", "5"), "Range of blkio weight is from 10 to 1000"),
        (("--isolation", "hyperv"), "isolation"),
        (("--tmpfs", "t"), "mount path must be absolute"),
        (("--tmpfs", "/t:bogus=1"), 'invalid tmpfs option ["bogus" "1"]'),
        (("--workdir", "relative"), "absolute path"),
        (("--ip", "10.1.2.3"), "user specified IP address is supported on user defined networks only"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_with_a_sentence(engine: PrivateEngine, options: tuple[str, ...], told: str) -> None:
    done = engine.docker("run", "--rm", *options, "busybox", "true")
    assert done.returncode == 125, done.stdout
    assert told in done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--blkio-weight", "500"), "Weight discarded"),
        (("--blkio-weight-device", "{disk}:500"), "Weight-device discarded"),
        (("--ulimit", "nofile=1048577000:1048577000"), "this host cannot raise ulimit nofile above"),
        (("--cap-add", "SYS_RESOURCE"), "this host cannot give the container CAP_SYS_RESOURCE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_this_host_cannot_do_is_left_out_and_told(engine: PrivateEngine, options: tuple[str, ...], told: str) -> None:
    able = {"Weight discarded": "blkio.weight" in CGROUPS.knobs, "Weight-device discarded": "blkio.weight_device" in CGROUPS.knobs}
    if able.get(told, "CAP_SYS_RESOURCE" in caps.permitted()) or CGROUPS.unified:
        pytest.skip("this host can")
    disk = next((path for path in ("/dev/vda", "/dev/sda", "/dev/nvme0n1") if Path(path).exists()), "/dev/vda")
    done = engine.docker("run", "--rm", *(word.format(disk=disk) for word in options), "busybox", "echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert "WARNING: " in done.stderr
    assert told in done.stderr


def test_a_container_that_no_start_could_run_is_not_made(engine: PrivateEngine) -> None:
    for options, told in (
        (("--cpus", "4000"), "range of CPUs is from 0.01"), (("--cpuset-cpus", "999"), "Requested CPUs are not available"),
        (("--storage-opt", "size=1G"), "--storage-opt is supported only for"),
    ):  # fmt: skip
        done = engine.docker("create", "--name", "never", *options, "busybox")
        assert done.returncode == 1, options
        assert told in done.stderr
    assert "never" not in good(engine, "ps", "-a", "--format", "{{.Names}}").split()


def test_a_device_that_is_not_there(engine: PrivateEngine) -> None:
    done = engine.docker("run", "--rm", "--device", "/dev/nothing", "busybox", "true")
    assert done.returncode == 127, "docker's CLI reads the sentence"
    assert 'error gathering device information while adding custom device "/dev/nothing": no such file or directory' in done.stderr


def test_memory_is_joined_through_others(engine: PrivateEngine, named) -> None:
    first = named("--ipc", "shareable")
    second = named("--ipc", f"container:{first}")
    good(engine, "exec", second, "sh", "-c", "echo here > /dev/shm/x")
    assert good(engine, "run", "--rm", "--ipc", f"container:{second}", "busybox", "cat", "/dev/shm/x") == "here"
    on_host = named("--ipc", "host")
    assert good(engine, "run", "--rm", "--ipc", f"container:{on_host}", "busybox", "ls", "-d", "/dev/shm") == "/dev/shm"


def test_everything_is_gone_afterwards(engine: PrivateEngine) -> None:
    """The last test: no container and no mount of one is left."""
    assert good(engine, "ps", "-aq") == ""
    mounts = Path(f"/proc/{engine.process.pid}/mountinfo").read_text().splitlines()
    ours = [line.split()[4] for line in mounts if f" {engine.root}/" in line]
    assert not [path for path in ours if path.endswith("/merged") or "/run/netns" in path]
