"""Bad requests and bad clients against a real engine: the right status, a sentence, and nothing lost."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dockyard.testing.engines import PrivateEngine
from dockyard.testing.fuzz import Answer, parse_answer

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

LIMIT = 30.0
Ask = Callable[..., bytes]
DEEP = "[" * 100_000


@pytest.fixture
def send(engine: PrivateEngine, ask: Ask) -> Callable[..., Answer]:
    def sent(method: str, target: str, body: bytes | str | dict[str, Any] = b"", kind: str = "application/json", **headers: str) -> Answer:
        data = json.dumps(body).encode() if isinstance(body, dict) else body.encode() if isinstance(body, str) else body
        lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(data)}"]
        lines += [f"Content-Type: {kind}"] * bool(kind) + [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        raw = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data
        answer = parse_answer(ask(engine.socket, raw, limit=LIMIT, most=1 << 20, body_limit=LIMIT))
        assert answer is not None, f"no answer to {method} {target[:100]}"
        return answer

    return sent


def message(answer: Answer) -> str:
    return str(json.loads(answer.body)["message"])


def filters(tree: Any) -> str:
    return quote(json.dumps(tree))


def create(**wish: Any) -> dict[str, Any]:
    return {"Image": "busybox", "Cmd": ["true"], **wish}


TABLE: list[tuple[str, str, Any, int, str]] = [
    # malformed and mistyped bodies
    ("POST", "/containers/create", "{", 400, "invalid JSON"),
    ("POST", "/containers/create", "", 400, "EOF"),
    ("POST", "/containers/create", "[]", 400, "invalid JSON"),
    ("POST", "/containers/create", "null", 400, "invalid JSON"),
    ("POST", "/containers/create", DEEP, 400, "invalid JSON"),
    ("POST", "/containers/create", b'{"Image": "\xff"}', 400, "invalid JSON"),
    ("POST", "/containers/create", '{"Image": "busybox"} {"Image": "busybox"}', 400, "invalid JSON"),
    ("POST", "/containers/create", create(Env="A=B"), 400, "Env"),
    ("POST", "/containers/create", create(HostConfig={"Memory": "1g"}), 400, "Memory"),
    ("POST", "/containers/create", create(HostConfig={"Memory": 2**63}), 400, "int64"),
    ("POST", "/containers/create", create(HostConfig={"PortBindings": {"80": [{"HostPort": 80}]}}), 400, "HostPort"),
    ("POST", "/networks/create", {"Name": "n", "Labels": "@"}, 400, "Labels"),
    ("POST", "/networks/create", {"Name": "n", "IPAM": {"Config": [{"Subnet": "nonsense"}]}}, 400, "nonsense"),
    ("POST", "/volumes/create", {"Name": 7}, 400, "Name"),
    ("POST", "/volumes/create", {"Name": "../../etc"}, 400, "../../etc"),
    ("POST", "/containers/bad-input/exec", {"Cmd": {"a": 1}}, 400, "Cmd"),
    ("POST", "/containers/bad-input/update", {"Memory": []}, 400, "Memory"),
    # values that no container can have
    ("POST", "/containers/create?name=%2F..%2Fx", create(), 400, "Invalid container name"),
    ("POST", "/containers/create", create(HostConfig={"Memory": 1}), 400, "6MB"),
    ("POST", "/containers/create", create(HostConfig={"PidMode": "container:nosuch"}), 400, "No such container: nosuch"),
    ("POST", "/containers/create", create(HostConfig={"Binds": ["relative:/x:bad"]}), 400, "bad"),
    ("POST", "/containers/create", create(HostConfig={"Binds": ["/:relative"]}), 400, "absolute"),
    ("POST", "/containers/create", create(HostConfig={"RestartPolicy": {"Name": "sometimes"}}), 400, "sometimes"),
    ("POST", "/containers/create", create(HostConfig={"CapAdd": ["NOSUCH"]}), 400, "NOSUCH"),
    ("POST", "/containers/create", create(StopSignal="SIGNOSUCH"), 400, "SIGNOSUCH"),
    ("POST", "/containers/create", create(ExposedPorts={"99999/tcp": {}}), 400, "99999"),
    ("POST", "/containers/create", create(Image="nosuch-image"), 404, "No such image: nosuch-image:latest"),
    ("POST", "/containers/create", create(Image="UPPER/Case"), 400, "must be lowercase"),
    ("POST", "/containers/create?name=bad-input", create(), 409, "already in use"),
    ("POST", "/images/create?fromImage=busybox&platform=foo", "", 400, "unknown operating system or architecture"),
    ("POST", "/containers/create?platform=linux/am%20d64", create(), 400, "invalid component"),
    # unknown things, paths, methods, versions
    ("GET", "/containers/nosuch/json", "", 404, "No such container: nosuch"),
    ("GET", "/images/nosuch/json", "", 404, "No such image: nosuch:latest"),
    ("GET", "/volumes/nosuch", "", 404, "nosuch"),
    ("GET", "/networks/nosuch", "", 404, "nosuch"),
    ("GET", "/exec/nosuch/json", "", 404, "nosuch"),
    ("GET", "/nosuch", "", 404, "page not found"),
    ("PATCH", "/containers/json", "", 404, "page not found"),
    ("GET", "/v1.99/info", "", 400, "too new"),
    ("GET", "/v1.51x/info", "", 404, "page not found"),
    # parameters
    ("GET", "/containers/json?limit=many", "", 400, "many"),
    ("GET", "/containers/json?limit=" + "9" * 40, "", 400, "out of range"),
    ("GET", "/containers/json?filters={", "", 400, "invalid filter"),
    ("GET", "/containers/json?filters=" + quote(DEEP[:9_000]), "", 400, "invalid filter"),
    ("GET", f"/containers/json?filters={filters({'nosuch': ['x']})}", "", 400, "nosuch"),
    ("GET", f"/containers/json?filters={filters({'status': ['sleeping']})}", "", 400, "sleeping"),
    ("GET", f"/containers/json?filters={filters({'exited': ['soon']})}", "", 400, "soon"),
    ("GET", f"/containers/json?filters={filters({'status': 7})}", "", 400, "status"),
    ("GET", f"/networks?filters={filters({'dangling': ['true', '0']})}", "", 400, "dangling"),
    ("GET", f"/images/json?filters={filters({'dangling': ['perhaps']})}", "", 400, "dangling"),
    ("POST", f"/volumes/prune?filters={filters({'all': ['some']})}", "", 400, "all"),
    ("POST", "/containers/bad-input/wait?condition=tired", "", 400, "tired"),
    ("POST", "/containers/bad-input/kill?signal=SIGNOSUCH", "", 400, "SIGNOSUCH"),
    ("POST", "/containers/bad-input/rename?name=a%20b", "", 400, "Invalid container name"),
    ("GET", "/containers/bad-input/logs", "", 400, "at least one stream"),
    ("GET", "/containers/bad-input/logs?stdout=1&since=yesterday", "", 400, "yesterday"),
    # copying: nothing outside the container, no matter how it is asked for
    ("GET", "/containers/bad-input/archive", "", 400, "path cannot be empty"),
    ("GET", "/containers/bad-input/archive?path=%00", "", 400, "null byte"),
    ("GET", "/containers/bad-input/archive?path=/nosuch", "", 404, "Could not find the file"),
    ("PUT", "/containers/bad-input/archive?path=/etc/passwd", b"", 400, "not a directory"),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _container(engine: PrivateEngine) -> None:
    script = "ln -s / /root-link; ln -s ../../../../../.. /up-link; trap 'exit 0' TERM; touch /ready; sleep 100000 & wait"
    done = engine.docker("run", "-d", "--name", "bad-input", "busybox", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    end = time.monotonic() + LIMIT
    while engine.docker("exec", "bad-input", "test", "-e", "/ready").returncode:
        assert time.monotonic() < end


@pytest.mark.parametrize(("method", "target", "body", "status", "text"), TABLE, ids=[f"{row[0]} {row[1][:40]} {str(row[2])[:40]}" for row in TABLE])
def test_the_right_status_and_a_sentence(send, method: str, target: str, body: Any, status: int, text: str) -> None:
    answer = send(method, target, body)
    assert answer.status == status, answer.body
    assert text in message(answer)


def test_an_old_client_is_told_in_plain_text(send) -> None:
    answer = send("GET", "/v1.12/info")
    assert answer.status == 400
    assert b"client version 1.12 is too old" in answer.body


@pytest.mark.parametrize("kind", ["text/plain", "application/x-tar"])
def test_json_must_be_declared(send, kind: str) -> None:
    answer = send("POST", "/containers/create", create(), kind)
    assert answer.status == 400
    assert "unsupported Content-Type" in message(answer)


def test_huge_requests_are_refused_early(send, engine: PrivateEngine, ask: Ask) -> None:
    """A body over the limit, a head over its own, a length that is a lie: none of them is kept in memory."""
    assert send("POST", "/containers/create", b'{"Image": "' + b"a" * (17 << 20)).status == 413
    assert parse_answer(ask(engine.socket, b"GET /info HTTP/1.1\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n", limit=LIMIT, most=4096, body_limit=1.0)).status == 431
    lie = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999999999999\r\n\r\n{}"
    assert parse_answer(ask(engine.socket, lie, limit=LIMIT, most=4096, body_limit=1.0)).status == 413


def _tar(*entries: tuple[str, bytes, str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link, data in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, link, len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def test_archives_stay_inside(send, engine: PrivateEngine, tmp_path: Path) -> None:
    """Entries that climb, are absolute, or go through links of their own or of the container."""
    victim = tmp_path / "victim"
    depth = "../" * 30
    for target in ("/tmp", "/root-link/tmp", "/up-link/tmp"):
        for row in (
            [(f"{depth}{victim}", tarfile.REGTYPE, "", b"x")],
            [(str(victim), tarfile.REGTYPE, "", b"x")],
            [("door", tarfile.SYMTYPE, str(tmp_path), b""), ("door/victim", tarfile.REGTYPE, "", b"x")],
            [("hard", tarfile.LNKTYPE, f"{depth}etc/shadow", b"")],
        ):
            answer = send("PUT", f"/containers/bad-input/archive?path={target}", _tar(*row), "application/x-tar")
            assert answer.status in {200, 400, 403, 404}, answer.body
            assert not victim.exists()
    stat = send("HEAD", f"/containers/bad-input/archive?path={quote(f'/up-link/{tmp_path}')}")
    assert stat.status == 404, "a link of the container led out of it"
    inside = send("HEAD", "/containers/bad-input/archive?path=/root-link/etc/passwd")
    assert json.loads(base64.b64decode(inside.headers["x-docker-container-path-stat"]))["name"] == "passwd"


def test_a_port_in_use_is_told_and_the_container_can_be_started_later(engine: PrivateEngine) -> None:
    first = engine.docker("run", "-d", "--name", "port-a", "-p", "127.0.0.1:8123:80", "busybox", "sleep", "1000")
    assert first.returncode == 0, first.stderr
    second = engine.docker("run", "-d", "--name", "port-b", "-p", "127.0.0.1:8123:80", "busybox", "sleep", "1000")
    assert second.returncode == 125
    assert "8123" in second.stderr
    assert "already allocated" in second.stderr
    assert engine.docker("rm", "-f", "port-a").returncode == 0
    assert engine.docker("start", "port-b").returncode == 0
    assert engine.docker("rm", "-f", "port-b").returncode == 0


def test_a_half_closed_client_gets_its_answer(engine: PrivateEngine, connected) -> None:
    made = engine.docker("create", "-i", "busybox", "cat").stdout.strip()
    with connected(engine.socket, LIMIT) as sock:
        sock.sendall(f"POST /containers/{made}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
        assert b"101" in sock.recv(4096)
        assert engine.docker("start", made).returncode == 0
        sock.sendall(b"to the cat\n")
        sock.shutdown(1)
        told = b"".join(iter(lambda: sock.recv(4096), b""))
    assert told.endswith(b"to the cat\n")
    assert engine.docker("wait", made).stdout.strip() == "0"
    with connected(engine.socket, LIMIT) as sock:
        sock.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.shutdown(1)
        assert b"200 OK" in sock.recv(4096)
    engine.docker("rm", "-f", made)


NEVER_READ = ("attach?stream=1&stdout=1&logs=1", "logs?stdout=1&follow=1", "stats?stream=1")


def test_clients_that_never_read_freeze_nothing(engine: PrivateEngine, connected) -> None:
    """40 MB through a container with clients on all its streams that read nothing: it ends, and its log is whole."""
    made = engine.docker("create", "busybox", "sh", "-c", "dd if=/dev/zero bs=1M count=40 2>/dev/null | tr '\\0' x | fold -w 1000; echo; echo done").stdout.strip()
    lazy = []
    try:
        for path in NEVER_READ:
            sock = connected(engine.socket, LIMIT)
            lazy.append(sock)
            method = "POST" if path.startswith("attach") else "GET"
            sock.sendall(f"{method} /containers/{made}/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        events = connected(engine.socket, LIMIT)
        lazy.append(events)
        events.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert engine.docker("start", made).returncode == 0
        assert engine.docker("wait", made, timeout=90).stdout.strip() == "0"
        tail = engine.docker("logs", "--tail", "1", made)
        assert tail.stdout == "done\n"
        assert engine.docker("ps").returncode == 0
    finally:
        for sock in lazy:
            sock.close()
        engine.docker("rm", "-f", made)


@pytest.mark.parametrize("running", [True, False])
def test_copied_files_belong_to_whom_the_archive_says_or_to_the_user(send, engine: PrivateEngine, running: bool) -> None:
    """As dockerd does it: copyUIDGID means the user that the container runs as."""
    made = engine.docker("create", "--user", "postgres", "busybox", "sleep", "1000").stdout.strip()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("a")
        entry.uid, entry.gid = 1042, 1043
        tar.addfile(entry)
    if running:
        assert engine.docker("start", made).returncode == 0
    assert send("PUT", f"/containers/{made}/archive?path=/tmp", out.getvalue(), "application/x-tar").status == 200
    got = send("GET", f"/containers/{made}/archive?path=/tmp/a")
    with tarfile.open(fileobj=io.BytesIO(got.body)) as tar:
        first = tar.next()
        assert first is not None
        assert (first.uid, first.gid) == (1042, 1043)
    assert send("PUT", f"/containers/{made}/archive?path=/tmp&copyUIDGID=1", out.getvalue(), "application/x-tar").status == 200
    with tarfile.open(fileobj=io.BytesIO(send("GET", f"/containers/{made}/archive?path=/tmp/a").body)) as tar:
        second = tar.next()
        assert second is not None
        assert (second.uid, second.gid) == (70, 70)
    engine.docker("rm", "-f", made)
