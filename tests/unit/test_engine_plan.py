"""Pure decisions of the engine: merge of image and request, checks, mounts, restart policy, filters, status texts."""

from __future__ import annotations

import pytest

from dockyard.engine.events import matches
from dockyard.engine.health import next_health
from dockyard.engine.model import Health, HealthResult, MountPoint, Record, State
from dockyard.engine.plan.create import check_config, check_host, check_port, merge, merge_env
from dockyard.engine.plan.mounts import parse_bind, resolve_mounts
from dockyard.engine.plan.names import check_name
from dockyard.engine.plan.restart import next_delay, should_restart
from dockyard.engine.plan.select import parse_moment
from dockyard.engine.plan.status import human_duration, status_text
from dockyard.errors import InvalidParameter
from dockyard.lib.clock import parse_rfc3339, rfc3339
from dockyard.model import ContainerConfig, HostConfig, Mount, RestartPolicy
from dockyard.model.container import Ulimit

IMAGE = ContainerConfig(
    cmd=["serve"], entrypoint=["/entry"], env=["PATH=/bin", "A=1"], labels={"x": "1"}, volumes={"/data": {}},
    exposed_ports={"80/tcp": {}}, working_dir="/srv", user="app",
)  # fmt: skip


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "expected"),
    [
        (None, None, (["/entry"], ["serve"])),
        (None, ["x"], (["/entry"], ["x"])),
        (["/other"], None, (["/other"], None)),
        (["/other"], ["x"], (["/other"], ["x"])),
        ([""], ["x"], (None, ["x"])),
        ("/one", "two", (["/one"], ["two"])),
    ],
)
def test_entrypoint_and_command_follow_moby(entrypoint, cmd, expected) -> None:
    merged = merge(ContainerConfig(entrypoint=entrypoint, cmd=cmd), IMAGE)
    assert (merged.entrypoint, merged.cmd) == expected


def test_merge_unites_maps_and_lets_the_request_win() -> None:
    merged = merge(ContainerConfig(env=["A=2", "B=3"], labels={"x": "2"}, exposed_ports={"81": {}}, user="me"), IMAGE)
    assert merged.env == ["PATH=/bin", "A=2", "B=3"]
    assert merged.labels == {"x": "2"}
    assert merged.exposed_ports == {"80/tcp": {}, "81/tcp": {}}
    assert (merged.user, merged.working_dir) == ("me", "/srv")


def test_no_command_at_all_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="no command specified"):
        merge(ContainerConfig(), None)


def test_a_bare_name_stays_in_the_config() -> None:
    assert merge_env(["A=1", "B=2"], ["A"]) == ["A", "B=2"]


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"memory": 1000}, "Minimum memory limit allowed is 6MB"),
        ({"memory": 10 << 20, "memory_swap": 8 << 20}, "Minimum memoryswap limit"),
        ({"memory_swap": 8 << 20}, "always set the Memory limit"),
        ({"nano_cpus": 1, "cpu_quota": 5000}, "Nano CPUs and CPU Quota cannot both be set"),
        ({"restart_policy": RestartPolicy(name="sometimes")}, "unknown policy 'sometimes'"),
        ({"restart_policy": RestartPolicy(name="always", maximum_retry_count=3)}, "can only be used with 'on-failure'"),
        ({"restart_policy": RestartPolicy(name="always"), "auto_remove": True}, "can't create 'AutoRemove' container"),
        ({"ulimits": [Ulimit(name="nofile", hard=1, soft=2)]}, "ulimit soft limit"),
        ({"pid_mode": "weird"}, "invalid PID mode: weird"),
        ({"network_mode": "container:x", "publish_all_ports": True}, "port publishing and the container type"),
        ({"port_bindings": {"eighty/tcp": None}}, "invalid port specification: eighty/tcp"),
        ({"oom_score_adj": 2000}, "range for oom score adj"),
    ],
)
def test_contradictory_host_configs_are_refused(host, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words.replace("(", r"\(")):
        check_host(HostConfig(**host), ContainerConfig())


@pytest.mark.parametrize(
    "config", [{"env": ["=x"]}, {"working_dir": "rel"}, {"hostname": "two words"}, {"hostname": "a\n1.2.3.4 b"}, {"hostname": "x" * 64}, {"exposed_ports": {"0": {}}}]
)
def test_bad_configs_are_refused(config) -> None:
    with pytest.raises(InvalidParameter):
        check_config(ContainerConfig(**config))


def test_port_specifications() -> None:
    assert check_port("80") == (80, 80, "tcp")
    assert check_port("8000-8010/udp") == (8000, 8010, "udp")
    for bad in ("", "80/", "80/icmp", "90-80", "70000"):
        with pytest.raises(InvalidParameter):
            check_port(bad)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("/src:/dst", ("bind", "/src", "", "/dst", True)),
        ("/src/../x:/dst/:ro", ("bind", "/x", "", "/dst", False)),
        ("data:/dst", ("volume", "", "data", "/dst", True)),
        ("/dst", ("volume", "", "", "/dst", True)),
    ],
)
def test_binds(spec: str, expected) -> None:
    point = parse_bind(spec)
    assert (point.type, point.source, point.name, point.target, point.rw) == expected


@pytest.mark.parametrize("spec", ["", ":", "/a:/b:zz", "/a:b", "a:/", "/a:/b:ro:x", "vol:/x:shared"])
def test_bad_binds_are_refused(spec: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_bind(spec)


def test_mounts_are_ordered_by_depth_and_own_ones_replace_image_volumes() -> None:
    host = HostConfig(binds=["/h:/data/sub"], mounts=[Mount(type="bind", source="/b", target="/data")])
    points = resolve_mounts(IMAGE, host, lambda _: ())
    assert [(point.type, point.target) for point in points] == [("bind", "/data"), ("bind", "/data/sub")]
    with pytest.raises(InvalidParameter, match="Duplicate mount point: /data"):
        resolve_mounts(IMAGE, HostConfig(binds=["/h:/data", "/i:/data"]), lambda _: ())


def test_volumes_from_share_and_can_be_read_only() -> None:
    lender = [MountPoint(type="volume", target="/d", name="v", driver="local", anonymous=True)]
    (point,) = resolve_mounts(ContainerConfig(), HostConfig(volumes_from=["c:ro"]), lambda _: lender)
    assert (point.name, point.rw, point.anonymous, point.copy) == ("v", False, False, False)


def record(policy: str, **changes) -> Record:
    made = Record(
        id="i", name="n", created=0, image_id="", config=ContainerConfig(), path="x", args=(),
        host=HostConfig(restart_policy=RestartPolicy(name=policy, maximum_retry_count=changes.pop("limit", 0))),
    )  # fmt: skip
    return made.replace(**changes)


@pytest.mark.parametrize(
    ("policy", "changes", "code", "at_start", "expected"),
    [
        ("no", {}, 1, False, False),
        ("always", {}, 0, False, True),
        ("always", {"stopped_by_user": True}, 0, False, False),
        ("always", {"stopped_by_user": True}, 0, True, True),
        ("unless-stopped", {"stopped_by_user": True}, 0, True, False),
        ("on-failure", {}, 0, False, False),
        ("on-failure", {"limit": 2, "restart_count": 2}, 1, False, False),
        ("on-failure", {"limit": 2, "restart_count": 1}, 1, False, True),
        ("always", {"pending": "remove"}, 0, False, False),
    ],
)
def test_restart_policies(policy, changes, code, at_start, expected) -> None:
    assert should_restart(record(policy, **changes), code, daemon_start=at_start) is expected


def test_restart_delay_doubles_to_a_minute_and_a_long_run_resets_it() -> None:
    delay, seen = 0.0, []
    for _ in range(12):
        delay = next_delay(delay, 0)
        seen.append(delay)
    assert seen[:3] == [0.1, 0.2, 0.4]
    assert seen[-1] == 60
    assert next_delay(60, 11) == 0.1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (3000, "50 minutes"),
     (3600, "About an hour"), (7200, "2 hours"), (86400 * 3, "3 days"), (86400 * 21, "3 weeks"),
     (86400 * 90, "3 months"), (86400 * 800, "2 years")],
)  # fmt: skip
def test_durations_read_as_docker_writes_them(seconds: int, text: str) -> None:
    assert human_duration(seconds * 10**9) == text


def test_status_texts() -> None:
    up = State(status="running", started_at=10**9, health=Health("healthy"))
    assert status_text(up, 6 * 10**9) == "Up 5 seconds (healthy)"
    assert status_text(State(status="exited", exit_code=3, finished_at=0), 2 * 10**9) == "Exited (3) 2 seconds ago"


def test_names() -> None:
    assert check_name("/web-1") == "web-1"
    for bad in ("", "a", "-x", "a b", "é1", "a/b"):
        with pytest.raises(InvalidParameter, match="Invalid container name"):
            check_name(bad)


def test_health_turns_unhealthy_after_retries_and_not_while_starting() -> None:
    bad, good = HealthResult(0, 0, 1, ""), HealthResult(0, 0, 0, "")
    health = Health()
    health = next_health(health, bad, 2, starting=True)
    assert (health.status, health.failing_streak) == ("starting", 0)
    health = next_health(next_health(health, bad, 2, starting=False), bad, 2, starting=False)
    assert (health.status, health.failing_streak) == ("unhealthy", 2)
    assert next_health(health, good, 2, starting=False).status == "healthy"


def test_times_round_trip_with_nanoseconds() -> None:
    for moment in (0, 1, 1_700_000_000_123_456_789, 1_700_000_000_000_000_000):
        assert parse_rfc3339(rfc3339(moment)) == moment
    assert parse_rfc3339("2023-11-14T23:13:20.5+01:00") == 1_700_000_000_500_000_000


def test_moments_of_filters() -> None:
    now = 10**18
    assert parse_moment("10m", now) == now - 600 * 10**9
    assert parse_moment("1h30m", now) == now - 5400 * 10**9
    assert parse_moment("12.5", now) == 12_500_000_000
    with pytest.raises(InvalidParameter):
        parse_moment("yesterday", now)


def test_event_filters() -> None:
    event = {
        "Type": "container", "Action": "exec_create: ls", "scope": "local",
        "Actor": {"ID": "abcdef", "Attributes": {"name": "web", "image": "nginx:1", "k": "v"}},
    }  # fmt: skip
    for wanted in (
        {"event": ["exec_create"]},
        {"container": ["abc"]},
        {"container": ["web"]},
        {"image": ["nginx"]},
        {"label": ["k=v"]},
    ):
        assert matches(event, wanted), wanted
    for other in (
        {"event": ["start"]},
        {"type": ["image"]},
        {"container": ["db"]},
        {"label": ["k=w"]},
        {"volume": ["abc"]},
    ):
        assert not matches(event, other), other


def test_info_tells_what_this_host_can_limit_and_warns_of_the_rest() -> None:
    from dockyard.engine.plan.report import limits, warnings
    from dockyard.kernel.cgroup import Cgroups

    v1 = Cgroups("v1", {}, frozenset({"memory", "cpu", "cpuset", "pids"}), frozenset({"memory.oom_control", "cpu.cfs_quota_us"}))
    able = limits(v1)
    assert (able["MemoryLimit"], able["SwapLimit"], able["OomKillDisable"]) == (True, False, True)
    told = warnings(able, hosts=["unix:///x", "tcp://0.0.0.0:2375"], tls=False, ip_forward=True)
    assert [line.split(": ", 1)[1][:30] for line in told] == ["No swap limit support", "API is accessible on http://0."]
    v2 = limits(Cgroups("v2", {"": "/sys/fs/cgroup"}, frozenset({"memory", "cpu", "cpuset", "pids"})))
    assert warnings(v2, hosts=["tcp://0.0.0.0:2376"], tls=True, ip_forward=True) == []
    assert not v2["OomKillDisable"]
    assert "WARNING: IPv4 forwarding is disabled" in warnings(v2, hosts=[], tls=False, ip_forward=False)
