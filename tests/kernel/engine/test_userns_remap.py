"""``userns-remap`` with real containers: root inside is nobody outside, and every way to a file keeps its owner right."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.testing import engines
from dockyard.testing.engines import PrivateEngine, private_engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
UID, GID = 200000, 300000
USER = (
    "echo mapped:x:7777:7777::/:/bin/false >> /etc/passwd; echo mapped:x:7777: >> /etc/group; "
    f"echo mapped:{UID}:65536 >> /etc/subuid; echo mapped:{GID}:65536 >> /etc/subgid"
)
"""A user of its own for the engine, in its copy of /etc."""


@pytest.fixture(scope="module")
def engine(folder: Path, archive: Path) -> Iterator[PrivateEngine]:
    with private_engine("dockyard", folder / "e", settings={"userns-remap": "mapped"}, own_etc=USER) as made:
        good(made, "load", "-q", "-i", str(archive))
        yield made


def good(engine: PrivateEngine, *words: str) -> str:
    done = engine.docker(*words)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def shell(engine: PrivateEngine, script: str, *options: str) -> list[str]:
    return good(engine, "run", "--rm", *options, "busybox", "sh", "-c", script).split()


def pid_of(engine: PrivateEngine, name: str) -> int:
    return int(good(engine, "inspect", "-f", "{{.State.Pid}}", name))


def owner(path: Path) -> tuple[int, int]:
    info = path.lstat()
    return info.st_uid, info.st_gid


def upper(engine: PrivateEngine, name: str) -> Path:
    """The writable layer of a container, seen where the engine sees it."""
    inside = good(engine, "inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", name)
    return Path(f"/proc/{engine.process.pid}/root{inside}")


@pytest.fixture
def box(engine: PrivateEngine) -> Iterator[str]:
    good(engine, "run", "-d", "--name", "box", "busybox", "sleep", "1000")
    yield "box"
    engine.docker("rm", "-fv", "box")


def ids_of(pid: int) -> list[str]:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [row.split()[1] for row in rows if row.startswith(("Uid:", "Gid:"))]


def test_the_engine_says_so(engine: PrivateEngine) -> None:
    assert "name=userns" in good(engine, "info", "-f", "{{.SecurityOptions}}")
    assert good(engine, "info", "-f", "{{.DockerRootDir}}") == f"{engine.root}/data/{UID}.{GID}"
    root = engine.root / "data" / f"{UID}.{GID}"
    assert (root.stat().st_mode & 0o7777, *owner(root)) == (0o710, 0, GID)


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_root_inside_is_not_root_outside(engine: PrivateEngine, runtime: str) -> None:
    good(engine, "run", "-d", "--name", f"on-{runtime}", "--runtime", runtime, "busybox", "sleep", "1000")
    try:
        assert ids_of(pid_of(engine, f"on-{runtime}")) == [str(UID), str(GID)]
        assert good(engine, "exec", f"on-{runtime}", "id", "-u") == "0"
        assert good(engine, "exec", f"on-{runtime}", "cat", "/proc/self/uid_map").split() == ["0", str(UID), "65536"]
        good(engine, "exec", f"on-{runtime}", "touch", "/made")
        assert good(engine, "exec", f"on-{runtime}", "stat", "-c", "%u:%g", "/made") == "0:0"
        as_user = ["-u", "70:70", f"on-{runtime}", "sh", "-c", "cat /proc/self/status"]
        assert "70" in good(engine, "exec", *as_user).partition("Uid:")[2].split()[:1]
    finally:
        engine.docker("rm", "-f", f"on-{runtime}")


def test_what_root_of_the_host_owns_is_out_of_reach(engine: PrivateEngine, folder: Path) -> None:
    secret = folder / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    done = engine.docker("run", "--rm", "-v", f"{secret}:/secret", "busybox", "cat", "/secret")
    assert done.returncode == 1
    assert "Permission denied" in done.stderr


def test_an_image_keeps_its_owners(engine: PrivateEngine) -> None:
    assert shell(engine, "stat -c %u:%g / /bin/busybox /etc/passwd /etc/hosts /etc/resolv.conf /dev/shm") == ["0:0"] * 6


def test_a_terminal_an_init_and_devices(engine: PrivateEngine) -> None:
    assert shell(engine, "tty; echo hello > /dev/null; echo y > /dev/tty", "-t") == ["/dev/pts/0", "y"]
    assert shell(engine, "readlink /proc/1/exe", "--init")[0].endswith("init")
    assert shell(engine, "echo x > /dev/full || echo refused", "--device", "/dev/full")[-1] == "refused"
    assert shell(engine, "stat -c %u:%g /t", "--tmpfs", "/t") == ["0:0"]
    assert shell(engine, "cat /proc/self/uid_map && ls -d /dev/shm", "--ipc", "host") == ["0", str(UID), "65536", "/dev/shm"]
    assert shell(engine, "echo in; touch /x 2>/dev/null || echo refused", "--read-only", "--ipc", "none") == ["in", "refused"]
    assert shell(engine, "hostname", "--uts", "host")
    assert shell(engine, "cat /proc/self/cgroup >/dev/null && echo in", "--cgroupns", "private") == ["in"]


def test_the_network_is_the_containers_own(engine: PrivateEngine) -> None:
    words = ["--cap-add", "NET_ADMIN", "--sysctl", "net.ipv4.ip_forward=1"]
    script = "ping -c 1 -W 2 127.0.0.1 >/dev/null && echo ping; ip link add d type dummy && echo link; cat /proc/sys/net/ipv4/ip_forward"
    found = shell(engine, script, *words)
    assert found[0] == "ping"
    assert found[-1] == "1"
    assert "link" in found or not Path("/sys/module/dummy").exists()


def test_a_published_port(engine: PrivateEngine) -> None:
    serve = "mkdir /w; echo mapped > /w/index.html; httpd -f -p 80 -h /w"
    good(engine, "run", "-d", "--name", "web", "-p", "18080:80", "busybox", "sh", "-c", serve)
    try:
        end = time.monotonic() + 20
        while True:
            asked = subprocess.run(
                engine.inside("busybox", "wget", "-qO-", "http://127.0.0.1:18080/"), capture_output=True, text=True, timeout=20
            )
            if asked.returncode == 0 or time.monotonic() > end:
                break
            time.sleep(0.05)  # httpd is starting
        assert asked.stdout == "mapped\n"
    finally:
        engine.docker("rm", "-f", "web")


def test_what_containers_share(engine: PrivateEngine) -> None:
    good(engine, "run", "-d", "--name", "first", "--ipc", "shareable", "busybox", "sleep", "1000")
    try:
        good(engine, "exec", "first", "sh", "-c", "echo here > /dev/shm/x")
        script = "cat /dev/shm/x; ls /sys/class/net; ps | grep -c 'sleep 1000'"
        found = shell(engine, script, "--ipc", "container:first", "--network", "container:first", "--pid", "container:first")
        assert found[0] == "here"
        assert "eth0" in found
        assert int(found[-1]) >= 1
    finally:
        engine.docker("rm", "-f", "first")


def test_the_layer_on_disk_has_the_images_ids(engine: PrivateEngine, box: str) -> None:
    good(engine, "exec", box, "sh", "-c", "echo new > /new; chown 70:71 /new; chown 5 /etc/passwd; rm /etc/shadow")
    on_disk = upper(engine, box)
    assert owner(on_disk / "new") == (70, 71)
    assert owner(on_disk / "etc/passwd")[0] == 5
    assert set(good(engine, "diff", box).splitlines()) >= {"A /new", "C /etc", "C /etc/passwd", "D /etc/shadow"}
    good(engine, "commit", box, "committed")
    wanted = ["70:71", "5:0"]
    script = "stat -c %u:%g /new /etc/passwd; test -e /etc/shadow || echo gone"
    for options in ([], ["--userns", "host"]):
        assert good(engine, "run", "--rm", *options, "committed", "sh", "-c", script).split() == [*wanted, "gone"]


def members(data: bytes) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        return {item.name: (item.uid, item.gid) for item in found}


def raw(engine: PrivateEngine, *words: str, given: bytes = b"") -> bytes:
    done = subprocess.run(["docker", "-H", engine.host, *words], input=given, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tar_of(**owners: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, (uid, gid) in owners.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.uid, info.gid, info.size = uid, gid, 1
            archive.addfile(info, io.BytesIO(b"x"))
    return out.getvalue()


@pytest.mark.parametrize("live", [True, False])
def test_export_and_cp_speak_the_containers_ids(engine: PrivateEngine, box: str, live: bool) -> None:
    good(engine, "exec", box, "sh", "-c", "mkdir /d; echo x > /d/f; chown 70:71 /d/f; chown 8:9 /d")
    if not live:
        good(engine, "stop", "-t", "0", box)
    exported = members(raw(engine, "export", box))
    assert (exported["d/f"], exported["bin/busybox"]) == ((70, 71), (0, 0))
    assert members(raw(engine, "cp", f"{box}:/d", "-")) == {"d": (8, 9), "d/f": (70, 71)}
    raw(engine, "cp", "-a", "-", f"{box}:/d", given=tar_of(a=(70, 71), sub__deep__b=(0, 0)))
    if not live:
        good(engine, "start", box)
    script = "stat -c %u:%g /d/a /d/sub /d/sub/deep /d/sub/deep/b"
    assert good(engine, "exec", box, "sh", "-c", script).split() == ["70:71", "0:0", "0:0", "0:0"]


def test_an_owner_that_the_namespace_does_not_have_is_refused(engine: PrivateEngine, box: str) -> None:
    done = subprocess.run(
        ["docker", "-H", engine.host, "cp", "-a", "-", f"{box}:/tmp"], input=tar_of(f=(70000, 0)), capture_output=True, timeout=60
    )
    assert done.returncode == 1
    assert b"owner 70000:0 is not among the ids" in done.stderr


def test_file_capabilities_survive_both_ways(engine: PrivateEngine, box: str) -> None:
    """cap_net_raw+ep as an image holds it (version 2); in the namespace it is bound to its root (version 3)."""
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("capable")
        info.mode, info.size = 0o755, 1
        info.pax_headers = {"SCHILY.xattr.security.capability": value.decode("utf-8", "surrogateescape")}
        archive.addfile(info, io.BytesIO(b"x"))
    raw(engine, "cp", "-", f"{box}:/", given=out.getvalue())
    assert os.getxattr(upper(engine, box) / "capable", "security.capability") == value
    with tarfile.open(fileobj=io.BytesIO(raw(engine, "cp", f"{box}:/capable", "-"))) as found:
        kept = found.getmembers()[0].pax_headers["SCHILY.xattr.security.capability"]
    assert kept.encode("utf-8", "surrogateescape") == value


def test_volumes_belong_to_the_containers_root(engine: PrivateEngine, folder: Path) -> None:
    good(engine, "volume", "create", "kept")
    place = Path(good(engine, "volume", "inspect", "-f", "{{.Mountpoint}}", "kept"))
    assert owner(place) == (UID, GID)
    assert shell(engine, "touch /v/f && chown 70:71 /v/f && stat -c %u:%g /v /v/f", "-v", "kept:/v") == ["0:0", "70:71"]
    assert owner(place / "f") == (UID + 70, GID + 71)
    assert shell(engine, "stat -c %u:%g /etc-copy/passwd /etc-copy; touch /etc-copy/x && echo ok", "-v", "filled:/etc-copy")[-1] == "ok"
    good(engine, "run", "--rm", "-v", "up:/etc", "busybox", "true")
    copied = Path(good(engine, "volume", "inspect", "-f", "{{.Mountpoint}}", "up"))
    assert owner(copied / "passwd") == (UID, GID)
    shell(engine, "true", "-v", f"{folder}/made/by/docker:/b")
    assert owner(folder / "made/by/docker") == (UID, GID)


def test_a_build_gives_layers_without_the_mapping(engine: PrivateEngine, folder: Path) -> None:
    context = folder / "context"
    context.mkdir()
    (context / "plain").write_text("x")
    (context / "Dockerfile").write_text(
        "FROM busybox\n"
        "COPY plain /copied\n"
        "COPY --chown=70:71 plain /owned\n"
        "RUN cat /proc/self/uid_map > /map && echo x > /ran && chown 5:6 /ran\n"
        "RUN --mount=type=cache,target=/cache,uid=70,gid=71 stat -c %u:%g /cache > /cache-owner && touch /cache/x\n"
        "RUN --mount=type=bind,from=busybox,source=/etc,target=/bound stat -c %u:%g /bound/passwd > /bound-owner\n"
        "USER 70\n"
        "RUN --mount=type=cache,target=/cache,uid=70,gid=71 touch /cache/y && id -u > /tmp/id\n"
    )
    with tarfile.open(folder / "context.tar", "w") as packed:
        packed.add(context, ".")
    body = (folder / "context.tar").read_bytes()
    built = subprocess.run(
        ["curl", "-sS", "--unix-socket", str(engine.socket), "-H", "Content-Type: application/x-tar", "--data-binary", "@-",
         "http://d/build?t=built&version=1"], input=body, capture_output=True, timeout=120,
    )  # fmt: skip
    assert b"Successfully built" in built.stdout, built.stdout[-1500:]
    script = "cat /map | tr -s ' '; stat -c %u:%g /copied /owned /ran /; cat /cache-owner /bound-owner /tmp/id"
    wanted = ["0", str(UID), "65536", "0:0", "70:71", "5:6", "0:0", "70:71", "0:0", "70"]
    assert good(engine, "run", "--rm", "built", "sh", "-c", script).split() == wanted
    saved = raw(engine, "save", "built")
    assert {number for ids in _layer_owners(saved) for number in ids} <= {0, 5, 6, 70, 71}


def _layer_owners(saved: bytes) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        listed = archive.extractfile("manifest.json")
        assert listed is not None
        for layer in json.loads(listed.read())[0]["Layers"]:
            inner = archive.extractfile(layer)
            assert inner is not None
            found |= set(members(inner.read()).values())
    return found


def test_one_container_may_opt_out(engine: PrivateEngine) -> None:
    good(engine, "run", "-d", "--name", "out", "--userns", "host", "--privileged", "--network", "host", "busybox", "sleep", "1000")
    try:
        assert ids_of(pid_of(engine, "out")) == ["0", "0"]
        assert good(engine, "exec", "out", "stat", "-c", "%u:%g", "/etc/passwd") == "0:0"
        good(engine, "cp", "/etc/hostname", "out:/copied")
        assert good(engine, "exec", "out", "stat", "-c", "%u:%g", "/copied") == "0:0"
    finally:
        engine.docker("rm", "-f", "out")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--privileged"], "privileged mode is incompatible with user namespaces.  You must run the container in the host"),
        (["--network", "host"], "cannot share the host's network namespace when user namespaces are enabled"),
        (["--pid", "host"], "cannot share the host PID namespace when user namespaces are enabled"),
    ],
)
def test_what_does_not_go_together(engine: PrivateEngine, options: list[str], told: str) -> None:
    done = engine.docker("run", "--rm", *options, "busybox", "true")
    assert done.returncode == 125
    assert told in done.stderr


def test_kill_9_and_again(folder: Path, archive: Path) -> None:
    with private_engine("dockyard", folder / "k", settings={"userns-remap": "mapped:mapped"}, own_etc=USER) as first:
        good(first, "load", "-q", "-i", str(archive))
        good(first, "run", "-d", "--name", "kept", "-v", "data:/data", "busybox", "sleep", "1000")
        good(first, "exec", "kept", "touch", "/before")
        pid = pid_of(first, "kept")
        second = engines.killed_and_again(first)
        try:
            assert pid_of(second, "kept") == pid
            assert good(second, "exec", "kept", "stat", "-c", "%u:%g", "/before") == "0:0"
            # The netns of the first life belongs to the same user namespace as what the second starts.
            script = "stat -c %u:%g /data; ping -c1 -W2 127.0.0.1 >/dev/null && echo ping"
            assert shell(second, script, "--network", "container:kept", "-v", "data:/data") == ["0:0", "ping"]
            good(second, "restart", "-t", "0", "kept")
            assert good(second, "exec", "kept", "stat", "-c", "%u:%g", "/before") == "0:0"
            left = [row for row in Path(f"/proc/{second.process.pid}/mountinfo").read_text().splitlines() if "/storage/mapped/" in row.split(" - ")[0]]
            assert left == []
        finally:
            engines.stop(second)


def test_default_makes_dockremap(folder: Path, archive: Path) -> None:
    with private_engine("dockyard", folder / "d", settings={"userns-remap": "default"}, own_etc="true") as made:
        listed = subprocess.run(made.inside("grep", "dockremap", "/etc/subuid"), capture_output=True, text=True, timeout=20)
        name, first, size = listed.stdout.strip().split(":")
        assert (name, size) == ("dockremap", "65536")
        good(made, "load", "-q", "-i", str(archive))
        assert shell(made, "cat /proc/self/uid_map") == ["0", first, "65536"]


@pytest.mark.parametrize(
    ("wish", "etc", "told"),
    [
        ("nobodyhere", "true", "Error during uid lookup for"),
        ("a:b:c", "true", "Invalid user/group specification"),
        ("daemon", "true", "usermod --add-subuids"),
        ("mapped", f"{USER}; echo mapped:wrong:5 >> /etc/subuid", "Format not correct"),
        ("default", "mount --bind /bin/false /usr/sbin/useradd", 'Error during "dockremap" user creation'),
    ],
)
def test_what_cannot_be_mapped_is_said_at_start(folder: Path, wish: str, etc: str, told: str) -> None:
    with pytest.raises(RuntimeError, match=told), private_engine("dockyard", folder / "f", settings={"userns-remap": wish}, own_etc=etc):
        pass


def test_root_remapped_with_itself_is_no_remapping(folder: Path) -> None:
    with private_engine("dockyard", folder / "r", settings={"userns-remap": "root"}) as made:
        assert "userns" not in good(made, "info", "-f", "{{.SecurityOptions}}")


def test_a_data_root_that_others_may_not_pass_is_named(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(RuntimeError, match="restricts access to the remapped root"), private_engine(
        "dockyard", closed / "e", settings={"userns-remap": "mapped"}, own_etc=USER
    ):
        pass
