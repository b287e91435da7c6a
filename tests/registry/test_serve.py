"""The command as people start it: TLS of every origin, what it says, and its memory while something large comes in."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dockyard.registry.tls import self_made
from dockyard.testing.registries import free_port
from dockyard.testing.registry_server import PASSWORD, basic

COMMAND = (sys.executable, "-m", "dockyard.cli", "registry")
_START = 60.0
LARGE = 300_000_000
GROWTH_MAX = 40_000_000


def administer(data: Path, *words: str, told: str = "") -> str:
    return subprocess.run([*COMMAND, "--data", str(data), *words], input=told, text=True, capture_output=True, check=True, timeout=60).stdout


@contextlib.contextmanager
def serving(data: Path, *words: str, trusted: Path | None = None) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """(port, process). It ends as systemd ends it, and must do so in time."""
    port = free_port()
    data.mkdir(exist_ok=True)
    with (data / "log").open("ab") as log:
        process = subprocess.Popen([*COMMAND, "--data", str(data), "serve", "--listen", f"127.0.0.1:{port}", *words], stdout=log, stderr=log)
    try:
        end = time.monotonic() + _START
        while True:
            with contextlib.suppress(OSError):
                if ask(port, "GET", "/health", trusted=trusted)[0] == 200:
                    break
            assert process.poll() is None, (data / "log").read_text()[-3000:]
            assert time.monotonic() < end, (data / "log").read_text()[-3000:]
            time.sleep(0.05)  # a real process is starting; bounded by _START
        yield port, process
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(30)


def ask(port: int, method: str, path: str, body: Any = None, trusted: Path | None = None, **headers: str) -> tuple[int, Any]:
    """(status, document or bytes). `trusted` is a certificate: then by TLS, with every check on."""
    if trusted is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=ssl.create_default_context(cafile=str(trusted)))
    with contextlib.closing(connection):
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        raw = answer.read()
        return answer.status, json.loads(raw) if "json" in answer.headers.get("content-type", "") else raw


def seen(port: int) -> str:
    """Digest of the certificate that the port shows."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port)))).hexdigest()


def fingerprint(certificate: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


def test_a_self_made_certificate_is_trusted_and_kept(tmp_path: Path) -> None:
    certificate, shown = tmp_path / "data/tls.crt", set()
    for _ in range(2):
        with serving(tmp_path / "data", "--tls-self-made", trusted=certificate) as (port, _):
            assert ask(port, "GET", "/v2/", trusted=certificate)[0] == 401
            shown.add(seen(port))
    assert shown == {fingerprint(certificate)}
    assert (tmp_path / "data/tls.key").stat().st_mode & 0o077 == 0


def test_a_given_certificate_and_another_one_saved_while_it_serves(tmp_path: Path) -> None:
    """The token endpoint is named by https; the saved one is used at once, and after a restart."""
    made = {name: self_made(tmp_path / name, "127.0.0.1") for name in ("given", "saved")}
    given, saved = (Path(certificate) for certificate, _ in made.values())
    administer(tmp_path / "data", "user", "add", "alice", "--admin", "--password-stdin", told=PASSWORD + "\n")
    login = {"Authorization": basic("alice", PASSWORD)}
    words = ("--tls-cert", str(given), "--tls-key", made["given"][1])
    with serving(tmp_path / "data", *words, trusted=given) as (port, _):
        assert seen(port) == fingerprint(given)
        value = json.dumps({"certificate": saved.read_text(), "key": Path(made["saved"][1]).read_text()})
        mixed = json.dumps({"certificate": saved.read_text(), "key": Path(made["given"][1]).read_text()})
        put = lambda text: ask(port, "PUT", "/api/v0/settings/tls", json.dumps({"value": text}), given, **login)  # noqa: E731
        assert put(mixed)[0] == 400, "a key of another certificate"
        assert put(value)[0] == 200
        assert seen(port) == fingerprint(saved)
        status, settings = ask(port, "GET", "/api/v0/settings", trusted=saved, **login)
        assert status == 200
        assert "PRIVATE KEY" not in json.dumps(settings)
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=ssl.create_default_context(cafile=str(saved)), timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", "/v2/")
            assert f'realm="https://127.0.0.1:{port}/token"' in connection.getresponse().headers["www-authenticate"]
    with serving(tmp_path / "data", *words, trusted=saved) as (port, _):
        assert seen(port) == fingerprint(saved)


def test_skopeo_over_tls_with_accounts(tmp_path: Path) -> None:
    administer(tmp_path / "data", "user", "add", "alice", "--password-stdin", told=PASSWORD + "\n")
    certificate, _ = self_made(tmp_path / "data", "127.0.0.1")
    trusted = tmp_path / "certs"
    trusted.mkdir()
    (trusted / "ca.crt").write_bytes(Path(certificate).read_bytes())
    layout = tmp_path / "layout"
    subprocess.run([sys.executable, "-c", _LAYOUT, str(layout)], check=True, timeout=60)
    with serving(tmp_path / "data", "--tls-self-made", trusted=Path(certificate)) as (port, _):
        place, creds = f"docker://127.0.0.1:{port}/alice/tls:1", f"alice:{PASSWORD}"
        skopeo = ("skopeo", "--insecure-policy")
        subprocess.run([*skopeo, "copy", "--dest-cert-dir", trusted, "--dest-creds", creds, f"oci:{layout}:x", place], check=True, timeout=60)
        told = subprocess.run([*skopeo, "inspect", "--cert-dir", trusted, "--creds", creds, place], check=True, timeout=60, capture_output=True)
        assert json.loads(told.stdout)["Os"] == "linux"
        assert subprocess.run([*skopeo, "inspect", "--creds", creds, place], timeout=60, capture_output=True).returncode != 0, "not trusted"


_LAYOUT = """
import hashlib, json, sys, pathlib
root = pathlib.Path(sys.argv[1]); blobs = root / "blobs/sha256"; blobs.mkdir(parents=True)
def put(data):
    name = hashlib.sha256(data).hexdigest(); (blobs / name).write_bytes(data); return {"digest": "sha256:" + name, "size": len(data)}
import gzip, io, tarfile
plain = io.BytesIO(); tarfile.open(fileobj=plain, mode="w").close()
diff = "sha256:" + hashlib.sha256(plain.getvalue()).hexdigest()
config = put(json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [diff]}}).encode())
layer = put(gzip.compress(plain.getvalue()))
kind = "application/vnd.oci.image."
manifest = put(json.dumps({"schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
    "config": config | {"mediaType": kind + "config.v1+json"}, "layers": [layer | {"mediaType": kind + "layer.v1.tar+gzip"}]}).encode())
(root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
(root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest | {
    "mediaType": kind + "manifest.v1+json", "annotations": {"org.opencontainers.image.ref.name": "x"}}]}))
"""


def test_lists_for_people_and_for_programs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    administer(data, "user", "add", "alice", "--admin", "--password-stdin", told=PASSWORD + "\n")
    administer(data, "org", "add", "acme", "--data", str(data))
    administer(data, "repo", "add", "acme/web", "--public")
    assert administer(data, "user", "list").splitlines() == [
        "NAME   KIND  ADMIN  SOURCE  STATE   FULL NAME", "acme   org          local   active", "alice  user  yes    local   active",
    ]  # fmt: skip
    assert administer(data, "repo", "list").splitlines()[1].split() == ["acme/web", "public", "0", "0"]
    elsewhere = subprocess.run([*COMMAND, "user", "list", "--json", "--data", str(data)], capture_output=True, text=True, timeout=60)
    assert [it["name"] for it in json.loads(elsewhere.stdout)] == ["acme", "alice"], "--data behind the verb"
    assert json.loads(administer(tmp_path / "other", "repo", "list", "--json")) == []
    assert administer(tmp_path / "other", "repo", "list") == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [(("--listen", "nowhere"), "HOST:PORT is wanted, not nowhere"), (("--listen", "127.0.0.1:70000"), "HOST:PORT is wanted"),
     (("--listen", "127.0.0.1:0", "--tls-cert", "/none/such"), "/none/such with /none/such: No such file"),
     (("--listen", "127.0.0.1:0", "--tls-cert", "/etc/hosts"), "/etc/hosts"), (("--bucket", "ftp://x"), "ftp://x"),
     (("--listen", "127.0.0.1:0", "--database", "postgresql://127.0.0.1:9/x"), "the database does not answer")],
)  # fmt: skip
def test_what_cannot_be_served_is_said_in_a_line(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = subprocess.run([*COMMAND, "--data", str(tmp_path), "serve", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("dockyard registry: ")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def test_memory_is_flat_while_something_large_comes_and_goes(tmp_path: Path) -> None:
    """The highest that the process ever held, before and after (the bench does the same with 2 GB)."""
    piece, digest = os.urandom(1_000_000), hashlib.sha256()
    for _ in range(LARGE // len(piece)):
        digest.update(piece)
    with serving(tmp_path / "data", "--auth", "none") as (port, process):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
        with contextlib.closing(connection):
            connection.request("POST", "/v2/t/large/blobs/uploads/", headers={"Content-Length": "0"})
            answer = connection.getresponse()
            answer.read()
            before, place = resident(process.pid), answer.headers["location"]
            pieces = (piece for _ in range(LARGE // len(piece)))
            connection.request("PATCH", place, pieces, {"Content-Length": str(LARGE)})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 202
        assert ask(port, "PUT", f"{place}?digest=sha256:{digest.hexdigest()}", Content_Length="0")[0] == 201
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=100)) as connection:
            connection.request("GET", f"/v2/t/large/blobs/sha256:{digest.hexdigest()}")
            answer, got = connection.getresponse(), 0
            while data := answer.read(1 << 20):
                got += len(data)
        assert got == LARGE
        assert resident(process.pid) - before < GROWTH_MAX
