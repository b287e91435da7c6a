"""Attacks that other builders fell for, each against the real engine. Nothing of the host is read, written or deleted."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.errors import DockyardError
from dockyard.kernel import netns
from dockyard.testing.engines import PrivateEngine

from .conftest import BuildClient, until_listening

pytestmark = pytest.mark.root


def test_stubs_are_never_removed_through_a_link(builder: BuildClient, tmp_path: Path) -> None:
    """CVE-2024-23652: the cleaner of mount points followed what the step had put there."""
    precious = tmp_path / "b"
    precious.write_text("")
    tmp_path.chmod(0o777)
    text = f"FROM busybox\nRUN --mount=type=tmpfs,target=/a/b mv /a /moved && ln -s {tmp_path} /a\nRUN test -L /a\n"
    assert builder.build(text).image
    assert precious.exists()


def test_a_cache_subpath_stays_in_its_cache(builder: BuildClient) -> None:
    """CVE-2024-23651: a source inside a shared cache that is swapped for a link."""
    plant = "RUN --mount=type=cache,id=evil,target=/c ln -sfn / /c/root && ln -sfn /etc /c/etc && touch /c/marker\n"
    look = "RUN --mount=type=cache,id=evil,source=root,target=/m test -e /m/marker && test ! -e /m/proc\n"
    assert builder.build(f"FROM busybox\n{plant}{look}").image
    failed = builder.build(f"FROM busybox\n{plant}RUN --mount=type=cache,id=evil,source=etc,target=/m cat /m/shadow\n")
    assert "not found" in failed.error
    assert "shadow" not in failed.text.replace("cat /m/shadow", "")


def test_a_mount_source_is_resolved_in_its_stage(builder: BuildClient) -> None:
    text = (
        "FROM busybox AS one\nRUN ln -s /etc /link && echo mine > /etc/mine && ln -s ../../../../etc /up\nFROM busybox\n"
        "RUN --mount=from=one,source=/link,target=/m test $(cat /m/mine) = mine\n"
        "RUN --mount=from=one,source=/up,target=/m test $(cat /m/mine) = mine\n"
    )
    assert builder.build(text).image


def test_copy_through_links_stays_inside(builder: BuildClient, tmp_path: Path) -> None:
    text = (
        f"FROM busybox AS one\nRUN ln -s {tmp_path} /out && ln -s / /abs && ln -s ../../.. /rel\n"
        "FROM one\nCOPY a /out/\nCOPY a /rel/deep/\nCOPY --from=one /abs/etc/passwd /copied\n"
        f"RUN test -f {tmp_path}/a && test -f /deep/a && grep -q root /copied\n"
    )
    assert builder.build(text, {"a": "a"}).image
    assert list(tmp_path.iterdir()) == []


def test_accounts_are_not_read_outside(builder: BuildClient) -> None:
    """CVE-2024-9676: /etc/passwd is a link to something endless, or to the host's."""
    for target in ("/dev/zero", "/proc/1/root/etc/passwd", "../../../../../../etc/passwd"):
        built = builder.build(f"FROM busybox\nRUN ln -sf {target} /etc/passwd\nUSER daemon\nRUN true\n")
        assert "unable to find user daemon" in built.error, target


def test_a_step_has_no_more_rights_than_a_container(builder: BuildClient) -> None:
    text = (
        "FROM busybox\nRUN ! mount -t tmpfs x /mnt && mknod /dev/disk b 8 0 && ! head -c1 /dev/disk && ! dmesg -c >/dev/null 2>&1\n"
        "RUN test $(grep CapEff /proc/self/status | cut -f2) = 00000000a80425fb\n"
        "RUN grep -q 'Seccomp:.2' /proc/self/status && ! echo x > /proc/sys/kernel/hostname && ! touch /sys/x\n"
    )
    assert builder.build(text).image


@pytest.mark.parametrize(
    "text", ["RUN --security=insecure true", "RUN --security=INSECURE true", "RUN --security=anything true", "RUN --device=/dev/sda true"]
)
def test_rights_that_were_not_granted_are_refused(builder: BuildClient, text: str) -> None:
    """CVE-2024-23653; a word that nobody knows is not the strongest one, and a flag that is not served is not passed over."""
    try:
        said = builder.build(f"FROM busybox\n{text}\n").error
    except DockyardError as error:
        said = str(error)
    assert said, "it was built"
    assert "internal error" not in said


def test_the_data_root_is_closed_to_others(builder: BuildClient) -> None:
    """CVE-2021-41091: who is on this host and not root reaches no layer, no root of a step, no context."""
    assert builder.build("FROM busybox\nRUN touch /x && chmod 4755 /x\n").image
    data = builder.engine.root / "data"
    closed = [data / name for name in ("storage", "build")]
    assert {path.name: path.stat().st_mode & 0o7 for path in closed} == {"storage": 0, "build": 0}
    assert {path.stat().st_uid for path in (data, *closed)} == {0}


def test_the_daemon_listens_on_paths_only(builder: BuildClient) -> None:
    """CVE-2020-15257: an abstract socket is reached from every container with the host's network."""
    builder.build("FROM busybox\nRUN true\n", nocache="1")
    rows = Path(f"/proc/{builder.engine.process.pid}/net/unix").read_text().splitlines()[1:]
    assert [row.split()[7] for row in rows if len(row.split()) > 7 and row.split()[7].startswith("@")] == []


def test_descriptors_of_the_daemon_do_not_reach_a_step(builder: BuildClient) -> None:
    """CVE-2024-21626: WORKDIR or a command through /proc/self/fd."""
    assert builder.build("FROM busybox\nRUN ls /proc/self/fd | wc -l > /n; test $(cat /n) -le 5\n").image
    built = builder.build("FROM busybox\nWORKDIR /proc/self/fd/7\nRUN cat ../../../etc/shadow\n")
    assert built.error


def test_a_proxy_password_is_in_no_image(builder: BuildClient) -> None:
    args = {"HTTP_PROXY": "http://user:sesame@proxy"}
    image = builder.build("FROM busybox\nRUN test -n $HTTP_PROXY\n", buildargs=args, nocache="1", t="proxied").image
    found = str(builder.inspect(image)) + str(builder.client.request("GET", "/images/proxied/history"))
    assert "sesame" not in found


@pytest.fixture
def git(engine: PrivateEngine, tmp_path: Path) -> Iterator[str]:
    """The URL of a repository, served inside the engine's namespace."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "Dockerfile").write_text("FROM busybox\nCOPY file /file\nRUN grep -q top /file\n")
    (work / "file").write_text("top\n")
    (work / "sub").mkdir()
    (work / "sub/Dockerfile").write_text("FROM busybox\nCOPY file /file\nRUN grep -q sub /file\n")
    (work / "sub/file").write_text("sub\n")
    os.symlink("/etc", work / "outside")
    os.symlink("../../../../../../../etc", work / "above")
    environ = os.environ | {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    for words in (
        ["init", "-q", "-b", "main"], ["add", "-A"], ["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x"],
        ["tag", "v1"], ["clone", "-q", "--bare", ".", str(tmp_path / "repo.git")],
    ):  # fmt: skip
        subprocess.run(["git", *words], cwd=work, env=environ, check=True)
    words = ["git", "daemon", f"--base-path={tmp_path}", "--export-all", "--listen=127.0.0.1", "--port=9418", "--reuseaddr"]
    server = subprocess.Popen(engine.inside(*words), env=environ | {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}, start_new_session=True)  # fmt: skip
    try:
        until_listening(engine, 9418)
        yield "git://127.0.0.1/repo.git"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(10)


def test_git_contexts(builder: BuildClient, git: str) -> None:
    assert builder.send(b"", remote=git).image
    assert builder.send(b"", remote=f"{git}#v1:sub").image
    for place in ("outside", "above"):
        # CVE-2026-33748: a link in the repository as its subdirectory.
        with pytest.raises(Exception, match=r"not found|Cannot locate|no such"):
            builder.send(b"", remote=f"{git}#main:{place}")
    with pytest.raises(Exception, match="cannot fetch"):
        builder.send(b"", remote=f"{git}#nosuchbranch")
    with pytest.raises(Exception, match=r"cannot fetch|neither"):
        builder.send(b"", remote="git@--upload-pack=touch /tmp/x:y.git")


def test_add_from_git(builder: BuildClient, git: str) -> None:
    text = f"FROM busybox\nADD {git}#v1 /r\nADD {git}#main:sub /s/\nRUN grep -q top /r/file && grep -q sub /s/file && test ! -e /r/.git\n"
    assert builder.build(text).image
    assert builder.build(f"FROM busybox\nADD --keep-git-dir {git} /r\nRUN test -d /r/.git && test $(readlink /r/outside) = /etc\n").image


@pytest.fixture
def web(engine: PrivateEngine) -> Iterator[tuple[str, dict[str, bytes]]]:
    """A web server inside the engine's namespace and what it serves."""
    files: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = files.get(self.path)
            self.send_response(200 if data is not None else 404)
            self.send_header("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: object) -> None: ...

    made: list[socket.socket] = []

    def listen() -> None:
        with netns.entered(f"/proc/{engine.process.pid}/ns/net"):
            made.append(socket.create_server(("127.0.0.1", 0)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = made[0]
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{made[0].getsockname()[1]}", files
    finally:
        server.shutdown()
        server.server_close()
        serving.join(10)


def test_add_from_a_url(builder: BuildClient, web: tuple[str, dict[str, bytes]]) -> None:
    import gzip
    import hashlib

    from .conftest import context

    url, files = web
    files["/f.txt"] = b"fetched"
    files["/x.tar.gz"] = gzip.compress(context({"inner": "in"}))
    digest = hashlib.sha256(b"fetched").hexdigest()
    text = (
        f"FROM busybox\nADD {url}/f.txt /t/\nADD --checksum=sha256:{digest} {url}/f.txt /named\nADD {url}/x.tar.gz /t/\n"
        f"ADD --unpack {url}/x.tar.gz /u/\nRUN test $(cat /t/f.txt) = fetched && test $(stat -c %a:%Y /t/f.txt) = 600:1136214245 "
        "&& test -f /named && test -f /t/x.tar.gz && test -f /u/inner\n"
    )
    assert builder.build(text).image
    assert builder.build(text).cached == 5
    files["/f.txt"] = b"changed"
    assert "digest mismatch" in builder.build(text, nocache="1").error
    assert "404" in builder.build(f"FROM busybox\nADD {url}/missing /x\n").error
    assert "cannot fetch" in builder.build("FROM busybox\nADD http://127.0.0.1:1/x /x\n").error


def test_contexts_from_a_url(builder: BuildClient, web: tuple[str, dict[str, bytes]]) -> None:
    from .conftest import context

    url, files = web
    files["/context.tar"] = context({"Dockerfile": "FROM busybox\nCOPY a /a\n", "a": "x"})
    files["/Dockerfile"] = b"FROM busybox\nRUN echo from-a-url\n"
    assert builder.send(b"", remote=f"{url}/context.tar").image
    assert "from-a-url" in builder.send(b"", remote=f"{url}/Dockerfile").text
    with pytest.raises(Exception, match="404"):
        builder.send(b"", remote=f"{url}/missing")
