"""The planner: a wish becomes an OCI configuration, in Docker's sense and valid by the specification's own schema."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT4

from dockyard.errors import DockyardError, InvalidParameter, NotImplementedYet, Unavailable
from dockyard.kernel import caps
from dockyard.kernel.cgroup import Cgroups
from dockyard.model import ContainerConfig, DeviceRequest, HostConfig, IdMaps, IdRange, Mount, Ulimit
from dockyard.model.container import Resources, ThrottleDevice
from dockyard.runtime.model import HostFacts, RuntimeFacts
from dockyard.runtime.plan import make_spec, make_update
from dockyard.runtime.request import DeviceNode, Namespaces, ResolvedMount, SpecRequest
from dockyard.runtime.security import DEFAULT_CAPABILITIES
from dockyard.runtime.users import User

SPECS = Path(os.environ.get("DOCKYARD_SPECS") or Path(__file__).parents[2] / "../shared/specs")
V1 = Cgroups(
    "v1",
    {name: f"/sys/fs/cgroup/{name}" for name in ("memory", "cpu", "cpuset", "pids", "blkio", "devices")},
    frozenset(("memory", "cpu", "cpuset", "pids", "blkio", "devices")),
    frozenset(
        ("memory.memsw.limit_in_bytes", "memory.swappiness", "memory.oom_control", "cpu.cfs_quota_us", "blkio.weight")
    ),
)
V2 = Cgroups("v2", {"": "/sys/fs/cgroup"}, frozenset(("memory", "cpu", "cpuset", "pids", "io")))
RUNC = RuntimeFacts("runc", "/usr/sbin/runc", "1.1.5", True, features=("rro",))
FACTS = HostFacts(
    runtime=RUNC, runtimes=(RUNC,), conmon_path="/usr/bin/conmon", conmon_version="2.1.6", cgroup=V1,
    capabilities=frozenset(caps.NAMES), kernel=(6, 1), kernel_release="6.1.0", arch="amd64", cpus=4, memory=8 << 30,
    seccomp=True, apparmor=False, apparmor_default="", init_path="/usr/bin/tini",
    rlimits={"RLIMIT_NOFILE": (1024, 20000)},
)  # fmt: skip
CLAMPED = dataclasses.replace(FACTS, capabilities=FACTS.capabilities - {"CAP_SYS_RESOURCE"})
ON_V2 = dataclasses.replace(FACTS, cgroup=V2)


def request(config: ContainerConfig | None = None, host: HostConfig | None = None, **more) -> SpecRequest:
    more = {"argv": ("true",), "hostname": "box"} | more
    return SpecRequest(
        id="c" * 64, rootfs="/rootfs", config=config or ContainerConfig(), host=host or HostConfig(), **more
    )


def refusal(host: HostConfig, facts: HostFacts = FACTS, **more) -> str:
    with pytest.raises(DockyardError) as caught:
        make_spec(request(host=host, **more), facts)
    return str(caught.value)


RICH = request(
    ContainerConfig(tty=True, domainname="example.org"),
    HostConfig(
        memory=64 << 20, nano_cpus=1_500_000_000, cpuset_cpus="0-1", pids_limit=50, blkio_weight=300,
        blkio_device_read_bps=[ThrottleDevice(path="/dev/vda", rate=1000)], memory_swappiness=10,
        cap_add=["NET_ADMIN"], cap_drop=["cap_chown"], security_opt=["no-new-privileges"], readonly_rootfs=True,
        tmpfs={"/run": "size=64k,exec"}, ulimits=[Ulimit(name="nofile", soft=100, hard=200)], console_size=[24, 80],
        mounts=[Mount(type="tmpfs", target="/t", tmpfs_options={"SizeBytes": 4096, "Mode": 0o1777})],
        sysctls={"net.core.somaxconn": "100"}, annotations={"a": "b"}, device_cgroup_rules=["c 7:* rmw"],
    ),
    env=("A=1", "PATH=/bin"), cwd="/srv/", user=User(1000, 100, (5,), "/home/u"), init=True,
    mounts=(ResolvedMount("/v", "/dst/deep"), ResolvedMount("/src", "/dst", ("ro",))),
    devices=(DeviceNode("/dev/fuse", "c", 10, 229),), block_numbers={"/dev/vda": (254, 0)},
    namespaces=Namespaces(net="/run/netns/x", pid="/proc/1/ns/pid"),
)  # fmt: skip
PRIVILEGED = request(host=HostConfig(privileged=True), host_devices=(DeviceNode("/dev/kmsg", "c", 1, 11),))
USERNS = request(ids=IdMaps((IdRange(0, 100000, 65536),), (IdRange(0, 100000, 65536),)))


@pytest.fixture(scope="session")
def validator():
    folder = SPECS / "oci-runtime"
    if not folder.is_dir():
        pytest.skip(f"specification data is absent: {folder}")
    documents = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    registry = Registry().with_resources(
        (name, DRAFT4.create_resource(document)) for name, document in documents.items()
    )
    return jsonschema.Draft4Validator(documents["config-schema.json"], registry=registry)


@pytest.mark.parametrize("wish", [request(), RICH, PRIVILEGED, USERNS], ids=["plain", "rich", "privileged", "userns"])
@pytest.mark.parametrize("facts", [FACTS, ON_V2, CLAMPED], ids=["v1", "v2", "clamped"])
def test_valid_by_the_schema_of_the_specification(validator, wish, facts):
    plan = make_spec(wish, facts)
    assert [error.message for error in validator.iter_errors(plan.spec)] == []


def test_plain_container_has_dockers_defaults():
    plan = make_spec(request(), FACTS)
    process, linux = plan.spec["process"], plan.spec["linux"]
    assert plan.warnings == []
    assert set(process["capabilities"]["bounding"]) == set(DEFAULT_CAPABILITIES)
    assert "inheritable" not in process["capabilities"]
    assert process["env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=box",
        "HOME=/",
    ]
    assert {"type": "network"} in linux["namespaces"]
    assert {"type": "cgroup"} not in linux["namespaces"]
    assert {"type": "cgroup"} in make_spec(request(), ON_V2).spec["linux"]["namespaces"]
    assert "/proc/kcore" in linux["maskedPaths"]
    assert linux["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    shm = next(mount for mount in plan.spec["mounts"] if mount["destination"] == "/dev/shm")
    assert "size=67108864" in shm["options"]
    assert linux["cgroupsPath"] == "/dockyard/" + "c" * 64


def test_rich_container():
    plan = make_spec(RICH, FACTS)
    process, linux = plan.spec["process"], plan.spec["linux"]
    assert process["args"] == ["/sbin/docker-init", "--", "true"]
    assert process["env"] == ["PATH=/bin", "HOSTNAME=box", "TERM=xterm", "A=1", "HOME=/home/u"]
    assert process["cwd"] == "/srv"
    assert process["user"] == {"uid": 1000, "gid": 100, "additionalGids": [5, 100]}
    assert process["consoleSize"] == {"height": 24, "width": 80}
    assert "CAP_NET_ADMIN" in process["capabilities"]["effective"]
    assert "CAP_CHOWN" not in process["capabilities"]["bounding"]
    assert linux["resources"]["memory"] == {"limit": 64 << 20, "swap": 128 << 20, "swappiness": 10}
    assert linux["resources"]["cpu"] == {"period": 100000, "quota": 150000, "cpus": "0-1"}
    assert linux["resources"]["blockIO"]["throttleReadBpsDevice"] == [{"major": 254, "minor": 0, "rate": 1000}]
    assert {"type": "network", "path": "/run/netns/x"} in linux["namespaces"]
    options = {mount["destination"]: mount["options"] for mount in plan.spec["mounts"]}
    assert options["/dst"] == ["rbind", "ro", "rro", "rprivate"]
    assert options["/dst/deep"] == ["rbind", "rprivate"]
    assert options["/run"] == ["nosuid", "nodev", "size=64k", "exec"]
    assert options["/t"] == ["noexec", "nosuid", "nodev", "mode=1777", "size=4096"]
    order = [mount["destination"] for mount in plan.spec["mounts"]]
    assert order.index("/dst") < order.index("/dst/deep")


@pytest.mark.parametrize(("option", "root"), [("rslave", "rslave"), ("shared", "shared"), ("private", None)])
def test_propagation_reaches_the_root(option, root):
    plan = make_spec(request(mounts=(ResolvedMount("/v", "/dst", (option, "ro")),)), FACTS)
    assert plan.spec["mounts"][-1]["options"] == ["rbind", "ro", option]
    assert plan.spec["linux"].get("rootfsPropagation") == root


def test_a_wish_replaces_a_default_mount():
    plan = make_spec(request(mounts=(ResolvedMount("/h", "/dev/shm"),)), FACTS)
    assert [mount["source"] for mount in plan.spec["mounts"] if mount["destination"] == "/dev/shm"] == ["/h"]


def test_privileged_takes_what_the_host_has_and_names_the_rest():
    plan = make_spec(PRIVILEGED, CLAMPED)
    assert plan.spec["linux"]["maskedPaths"] == plan.spec["linux"]["readonlyPaths"] == []
    assert "seccomp" not in plan.spec["linux"]
    assert plan.spec["linux"]["devices"][0]["path"] == "/dev/kmsg"
    assert plan.spec["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "CAP_SYS_RESOURCE" not in plan.spec["process"]["capabilities"]["bounding"]
    assert any("CAP_SYS_RESOURCE" in warning for warning in plan.warnings)


def test_limits_that_the_host_cannot_raise_are_clamped_and_told():
    wish = HostConfig(ulimits=[Ulimit(name="nofile", soft=50000, hard=50000)], oom_score_adj=-500)
    plan = make_spec(request(host=wish), CLAMPED)
    assert plan.spec["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 20000, "hard": 20000}]
    assert "oomScoreAdj" not in plan.spec["process"]
    assert len(plan.warnings) == 2
    assert make_spec(request(host=wish), FACTS).spec["process"]["rlimits"][0]["hard"] == 50000


def test_what_the_kernel_lacks_is_left_out_with_dockers_warning():
    bare = dataclasses.replace(FACTS, cgroup=Cgroups("v1", {}, frozenset(("memory", "cpu"))))
    plan = make_spec(request(host=HostConfig(memory=8 << 20, memory_swap=9 << 20, pids_limit=5, cpu_quota=5000)), bare)
    assert plan.spec["linux"]["resources"]["memory"] == {"limit": 8 << 20}
    assert len(plan.warnings) == 3
    assert all(warning.startswith("Your kernel does not support") for warning in plan.warnings)


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        (HostConfig(memory=1 << 20), "Minimum memory limit allowed is 6MB"),
        (HostConfig(memory=8 << 20, memory_swap=7 << 20), "Minimum memoryswap limit should be larger"),
        (HostConfig(memory_swap=8 << 20), "You should always set the Memory limit when using Memoryswap"),
        (HostConfig(nano_cpus=5_000_000_000), "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available"),
        (HostConfig(nano_cpus=1, cpu_period=1000), "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
        (HostConfig(cpuset_cpus="0,9"), "Requested CPUs are not available - requested 0,9, available: 0-3"),
        (HostConfig(cpuset_cpus="x"), "Invalid value x for cpuset cpus"),
        (HostConfig(blkio_weight=5), "Range of blkio weight is from 10 to 1000"),
        (HostConfig(cap_add=["FLY"]), 'invalid CapAdd: unknown capability: "CAP_FLY"'),
        (HostConfig(security_opt=["foo=bar"]), 'invalid --security-opt 2: "foo=bar"'),
        (HostConfig(security_opt=["seccomp={"]), "Decoding seccomp profile failed"),
        (HostConfig(ulimits=[Ulimit(name="nope")]), "invalid ulimit type: nope"),
        (HostConfig(sysctls={"kernel.panic": "1"}), 'sysctl "kernel.panic" is not in a separate kernel namespace'),
        (HostConfig(oom_score_adj=5000), "range for oom score adj is [-1000, 1000]"),
        (HostConfig(device_cgroup_rules=["x"]), "invalid device cgroup rule format: 'x'"),
        (HostConfig(shm_size=-1), "SHM size can not be less than 0"),
        (HostConfig(tmpfs={"run": ""}), "mount path must be absolute"),
    ],
)  # fmt: skip
def test_refusals_in_dockers_words(wish, sentence):
    assert sentence in refusal(wish)


def test_refusals_by_kind():
    with pytest.raises(NotImplementedYet, match=r'could not select device driver "" with capabilities: \[\[gpu\]\]'):
        make_spec(request(host=HostConfig(device_requests=[DeviceRequest(capabilities=[["gpu"]])])), FACTS)
    with pytest.raises(Unavailable, match="--init"):
        make_spec(request(init=True), dataclasses.replace(FACTS, init_path=""))
    with pytest.raises(InvalidParameter, match="host network namespace"):
        make_spec(request(host=HostConfig(sysctls={"net.a": "1"}), namespaces=Namespaces(net="host")), FACTS)


def test_update_names_only_what_changes():
    resources, warnings = make_update(Resources(memory=32 << 20, pids_limit=0), FACTS, {})
    assert resources == {"memory": {"limit": 32 << 20, "swap": 64 << 20}, "pids": {"limit": -1}}
    assert warnings == []
