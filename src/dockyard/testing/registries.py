"""Registries for tests: Debian's docker-registry as a private process, and the token server that it may trust.

Everything listens on loopback ports chosen by the kernel and ends with its context.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import http.client
import json
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

REGISTRY = "/usr/bin/docker-registry"
START_LIMIT = 15.0
"""Seconds until the registry must answer."""
STOP_LIMIT = 10.0
USER, PASSWORD = "alice", "secret"
HTPASSWD = f"{USER}:$2b$04$CXkOH5u1JT1wcQiAYYZ2zOpk/lAwaNzL76FMkbpuJBgU8hq64sUxm\n"
"""bcrypt of PASSWORD."""
SERVICE, ISSUER = "registry-under-test", "token-server-under-test"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def debian_registry(
    root: Path, *, htpasswd: bool = False, token_server: TokenServer | None = None, tls: Certificate | None = None,
    port: int = 0, inside: Callable[..., list[str]] | None = None,
) -> Iterator[str]:  # fmt: skip
    """Runs docker-registry over ``root``; yields its ``host:port``. ``inside`` wraps its command (another namespace,
    whose loopback is not ours: then whoever uses it has to wait for it)."""
    root.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    http_section: dict[str, Any] = {"addr": f"127.0.0.1:{port}", "secret": "for-tests"}
    if tls:
        http_section["tls"] = {"certificate": str(tls.cert), "key": str(tls.key)}
    config: dict[str, Any] = {
        "version": 0.1, "log": {"level": "error", "accesslog": {"disabled": True}}, "http": http_section,
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}, "delete": {"enabled": True}},
    }  # fmt: skip
    if htpasswd:
        (root / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(root / "htpasswd")}}
    if token_server:
        bundle = str(token_server.certificate.cert)
        config["auth"] = {
            "token": {"realm": token_server.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}
        }
    (root / "config.yml").write_text(json.dumps(config))  # YAML is a superset of JSON
    with (root / "log").open("wb") as log:
        command = [REGISTRY, "serve", str(root / "config.yml")]
        process = subprocess.Popen(inside(*command) if inside else command, stdout=log, stderr=log)
    try:
        if inside is None:
            _await_answer(port, process, root / "log", tls is not None)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(STOP_LIMIT)


def _await_answer(port: int, process: subprocess.Popen[bytes], log: Path, tls: bool) -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        if tls:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", port, timeout=1, context=ssl._create_unverified_context()
            )
        try:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
            return
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)  # a real process is starting; bounded by START_LIMIT
        finally:
            connection.close()
    raise RuntimeError(f"docker-registry does not answer: {log.read_text()[-2000:]}")


@dataclass(frozen=True, slots=True)
class Certificate:
    cert: Path
    key: Path


def make_certificate(folder: Path, *names: str) -> Certificate:
    """A self-signed certificate (its own authority) for DNS names and addresses."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    alternatives: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
    ]
    cert = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    made.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


@dataclass
class TokenServer:
    """Grants anonymous pull, and everything to ``user`` in its own namespace (distribution docs spec/auth)."""

    certificate: Certificate
    realm: str
    user: str = USER
    password: str = PASSWORD
    refresh: str = field(default_factory=lambda: secrets.token_hex(8))
    requests: list[str] = field(default_factory=list)

    def answer(self, query: dict[str, list[str]], account: str | None) -> dict[str, Any]:
        import jwt

        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, name, actions = scope.split(":")
            allowed = {"pull", "push", "delete"} if account == name.partition("/")[0] else {"pull"}
            granted = [action for action in actions.split(",") if action in allowed]
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": account or "", "aud": SERVICE, "exp": now + 300, "nbf": now - 5, "iat": now,
            "jti": secrets.token_hex(4), "access": access,
        }  # fmt: skip
        pem = self.certificate.cert.read_text().split("-----")[2]
        headers = {"x5c": ["".join(pem.split())]}
        token = jwt.encode(claims, self.certificate.key.read_text(), "ES256", headers=headers)
        answer: dict[str, Any] = {"token": token, "expires_in": 300}
        return answer | ({"refresh_token": self.refresh} if query.get("offline_token") else {})


@contextlib.contextmanager
def token_server(folder: Path) -> Iterator[TokenServer]:
    certificate = make_certificate(folder, "token-server")
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _TokenHandler)
    server = TokenServer(certificate, f"http://127.0.0.1:{listener.server_address[1]}/token")
    listener.tokens = server  # type: ignore[attr-defined]
    thread = threading.Thread(target=listener.serve_forever, name="token-server", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(STOP_LIMIT)


class _TokenHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: TokenServer = self.server.tokens  # type: ignore[attr-defined]
        server.requests.append(self.path)
        header = self.headers.get("Authorization", "")
        account = None
        if header:
            name, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
            if (name, password) != (server.user, server.password):
                return self._refuse("incorrect username or password")
            account = name
        return self._send(200, server.answer(parse_qs(urlsplit(self.path).query), account))

    def do_POST(self) -> None:
        server: TokenServer = self.server.tokens  # type: ignore[attr-defined]
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        server.requests.append("POST " + form["grant_type"][0])
        if form.get("refresh_token") != [server.refresh]:
            return self._refuse("invalid refresh token")
        return self._send(200, server.answer(form, server.user))

    def _refuse(self, message: str) -> None:
        self._send(401, {"errors": [{"code": "UNAUTHORIZED", "message": message}]})

    def _send(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the test reads ``requests`` instead."""
