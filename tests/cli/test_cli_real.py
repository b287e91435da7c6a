"""The command line on a private real engine: what the simulated one cannot show."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockyard.client import Client
from dockyard.testing import engines, kit, registries

pytestmark = pytest.mark.root
LIMIT = 90.0


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engines.PrivateEngine]:
    folder = tmp_path_factory.mktemp("real")
    archive = kit.archive(folder / "kit.tar")
    with engines.private_engine("dockyard", folder / "engine") as made:
        with Client(made.host) as client, archive.open("rb") as file:
            for _ in client.objects("POST", "/images/load", body=iter(lambda: file.read(1 << 20), b""), timeout=LIMIT):
                pass
        yield made


@pytest.fixture
def dockyard(engine: engines.PrivateEngine, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
    environ |= {"DOCKER_HOST": engine.host, "DOCKER_CONFIG": str(tmp_path / "config")}

    def run(*words: str, typed: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "dockyard.cli", *words], env=environ, input=typed, capture_output=True, timeout=LIMIT,
            cwd=tmp_path,
        )  # fmt: skip

    return run


def test_streams_stay_apart_and_exit_codes_are_the_container_s(dockyard) -> None:
    ran = dockyard("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (ran.stdout, ran.stderr, ran.returncode) == (b"out\n", b"err\n", 3)
    assert dockyard("run", "--rm", "busybox", "nothing").returncode == 127
    assert dockyard("run", "--rm", "busybox", "/etc").returncode == 126
    assert dockyard("run", "--rm", "--network", "nobody", "busybox", "true").returncode == 125
    assert dockyard("ps", "-aq").stdout == b"", "--rm took them away"


def test_a_large_input_goes_through_unharmed(dockyard) -> None:
    data = os.urandom(3 << 20)
    assert dockyard("run", "--rm", "-i", "busybox", "cat", typed=data).stdout == data


def test_exec_codes_are_right_every_time(dockyard) -> None:
    dockyard("run", "-d", "--name", "codes", "busybox", "sleep", "1000")
    assert [dockyard("exec", "codes", "sh", "-c", f"exit {code}").returncode for code in range(1, 6)] == [1, 2, 3, 4, 5]
    assert dockyard("exec", "codes", "nothing").returncode in (126, 127), "dockerd 20 says the one, 28 the other"
    assert dockyard("exec", "-i", "codes", "cat", typed=b"typed").stdout == b"typed"
    assert dockyard("exec", "-w", "/tmp", "-e", "A=b", "codes", "sh", "-c", "pwd; echo $A").stdout == b"/tmp\nb\n"
    dockyard("rm", "-f", "codes")


def test_the_third_ctrl_c_ends_the_client_though_the_container_goes_on(engine: engines.PrivateEngine, dockyard) -> None:
    """As docker's CLI; what ends nothing is not counted."""
    script = "trap 'echo heard' INT; trap : CONT; echo up; while :; do sleep 0.1; done"
    words = [sys.executable, "-m", "dockyard.cli", "-H", engine.host, "run", "--name", "stubborn", "busybox", "sh", "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stderr is not None
        assert client.stdout.readline() == b"up\n"
        client.send_signal(signal.SIGCONT)
        for _ in range(2):
            client.send_signal(signal.SIGINT)
            assert client.stdout.readline() == b"heard\n"
        client.send_signal(signal.SIGINT)
        assert client.wait(LIMIT) == 1
        assert client.stderr.read() == b"\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n"
    assert dockyard("inspect", "-f", "{{.State.Running}}", "stubborn").stdout == b"true\n"
    dockyard("rm", "-f", "stubborn")


def test_copies_in_and_out_and_between(dockyard, tmp_path: Path) -> None:
    for name in ("one", "two"):
        dockyard("run", "-d", "--name", name, "busybox", "sleep", "1000")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "file").write_text("words")
    (tree / "sub/link").symlink_to("../file")
    assert dockyard("cp", "tree", "one:/srv").returncode == 0
    assert dockyard("cp", "tree/.", "one:/opt/new").returncode == 0
    assert dockyard("exec", "one", "cat", "/srv/tree/sub/link", "/opt/new/file").stdout == b"wordswords"
    assert dockyard("cp", "one:/srv/tree/.", "two:/home").returncode == 0
    assert dockyard("cp", "two:/home", "back").returncode == 0
    assert (tmp_path / "back/file").read_text() == "words"
    assert os.readlink(tmp_path / "back/sub/link") == "../file"
    with tarfile.open(fileobj=io.BytesIO(dockyard("cp", "one:/srv/tree", "-").stdout)) as tar:
        assert "tree/sub/link" in tar.getnames()
    missing = dockyard("cp", "one:/nothing", ".")
    assert (missing.returncode, b"Could not find the file /nothing in container one" in missing.stderr) == (1, True)
    dockyard("rm", "-f", "one", "two")


def test_images_by_every_way_in_and_out(dockyard, tmp_path: Path) -> None:
    dockyard("run", "--name", "made", "busybox", "sh", "-c", "echo words > /made")
    assert dockyard("diff", "made").stdout.decode().split() == ["A", "/made"]
    assert dockyard("commit", "-c", 'CMD ["cat", "/made"]', "made", "made:1").returncode == 0
    assert dockyard("run", "--rm", "made:1").stdout == b"words\n"
    assert dockyard("save", "-o", "made.tar", "made:1").returncode == 0
    assert dockyard("rmi", "made:1").returncode == 0
    assert b"Loaded image: made:1" in dockyard("load", "-i", "made.tar").stdout
    assert dockyard("run", "--rm", "made:1").stdout == b"words\n"
    assert dockyard("export", "-o", "flat.tar", "made").returncode == 0
    assert dockyard("import", "-c", 'CMD ["cat", "/made"]', "flat.tar", "flat:1").returncode == 0
    assert dockyard("run", "--rm", "flat:1").stdout == b"words\n"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "no part files are left"
    dockyard("rm", "made")
    dockyard("rmi", "made:1", "flat:1")


def test_a_registry_with_a_password(dockyard, engine: engines.PrivateEngine, tmp_path: Path) -> None:
    port = registries.free_port()
    with registries.debian_registry(tmp_path / "registry", htpasswd=True, port=port, inside=engine.inside) as host:
        wait_for(lambda: dockyard("login", host, "-u", registries.USER, "--password-stdin", typed=b"wrong").stderr, b"nauthorized")
        refused = dockyard("login", host, "-u", registries.USER, "--password-stdin", typed=b"wrong\n")
        assert (refused.returncode, refused.stdout) == (1, b"")
        name = f"{host}/app:1"
        dockyard("tag", "busybox", name)
        assert dockyard("push", name).returncode == 1, "no one is logged in"
        entered = dockyard("login", host, "-u", registries.USER, "--password-stdin", typed=registries.PASSWORD.encode() + b"\n")
        assert (entered.returncode, entered.stdout) == (0, b"Login Succeeded\n")
        pushed = dockyard("push", name)
        assert pushed.returncode == 0, pushed.stderr
        assert b"1: digest: sha256:" in pushed.stdout
        dockyard("rmi", name)
        pulled = dockyard("pull", name)
        assert pulled.returncode == 0, pulled.stderr
        assert pulled.stdout.splitlines()[-1].decode() == name
        assert dockyard("run", "--rm", "--pull", "always", "-q", name, "echo", "hi").stdout == b"hi\n"
        assert dockyard("logout", host).stdout.decode() == f"Removing login credentials for {host}\n"
        dockyard("rmi", "-f", name)
        missing = dockyard("pull", f"{host}/app:2")
        assert missing.returncode == 1


def wait_for(said: Callable[[], bytes], wanted: bytes) -> None:
    """Until the registry, which starts in the engine's namespace, answers."""
    end = time.monotonic() + LIMIT
    while wanted not in (last := said()):
        assert time.monotonic() < end, last
        time.sleep(0.1)


def test_limits_volumes_networks_and_stats(dockyard) -> None:
    dockyard("network", "create", "--subnet", "10.97.0.0/24", "own")
    words = ["--network", "own", "--ip", "10.97.0.9", "-v", "kept:/data", "-m", "64m", "--cpus", "0.5", "--tmpfs", "/run"]
    words += ["-p", "127.0.0.1:18080:80", "--health-cmd", "true", "-e", "A=b", "--init"]
    assert dockyard("run", "-d", "--name", "full", *words, "busybox", "sleep", "1000").returncode == 0
    document = json.loads(dockyard("inspect", "full").stdout)[0]
    assert document["NetworkSettings"]["Networks"]["own"]["IPAddress"] == "10.97.0.9"
    assert document["HostConfig"]["Memory"] == 64 << 20
    assert dockyard("port", "full", "80").stdout == b"127.0.0.1:18080\n"
    assert b"64MiB" in dockyard("stats", "--no-stream", "full").stdout
    assert b"sleep 1000" in dockyard("top", "full").stdout
    assert dockyard("update", "-m", "128m", "full").returncode == 0
    assert b"128MiB" in dockyard("stats", "--no-stream", "full").stdout
    assert dockyard("volume", "rm", "kept").returncode == 1, "in use"
    dockyard("rm", "-f", "full")
    assert dockyard("volume", "rm", "kept").returncode == 0
    assert dockyard("network", "rm", "own").returncode == 0
