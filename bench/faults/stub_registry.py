"""A registry that can be wrong in chosen ways: one image, told by a JSON document (path as the only argument).

Keys: listen [address, port]; certificate and key (paths; none: plain HTTP); status (of every manifest request);
headers (of those); push ("denied") and limit (bytes of an upload); challenge (WWW-Authenticate of /v2/); token (claims of
what /token gives); platforms of the index.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import ssl
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

REPOSITORY, TAG = "shop/app", "1.0"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def content(platforms: list[str]) -> dict[str, tuple[str, bytes]]:
    """Everything that can be asked for: digest or tag to (media type, bytes)."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("hello"))
    packed = gzip.compress(layer.getvalue(), mtime=0)
    made: dict[str, tuple[str, bytes]] = {}

    def add(kind: str, data: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        made[digest] = (kind, data)
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    blob = add("application/vnd.oci.image.layer.v1.tar+gzip", packed)
    diff = f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"
    rows = []
    for platform in platforms:
        system, _, machine = platform.partition("/")
        config = {"os": system, "architecture": machine, "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff]}}
        described = add("application/vnd.oci.image.config.v1+json", json.dumps(config).encode())
        body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [blob]}
        rows.append(add(MANIFEST, json.dumps(body).encode()) | {"platform": {"os": system, "architecture": machine}})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}
    add(INDEX, json.dumps(index).encode())
    made[TAG] = list(made.values())[-1]
    return made


class Handler(BaseHTTPRequestHandler):
    settings: ClassVar[dict[str, Any]] = {}
    files: ClassVar[dict[str, tuple[str, bytes]]] = {}
    uploads: ClassVar[dict[str, bytes]] = {}
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/token":
            claims = self.settings.get("token") or {}
            if "scope=" in self.path:
                claims = {"access": self._granted(), **claims}
            self._answer(200, "application/json", json.dumps({"token": _jwt(claims)}).encode())
        elif self.settings.get("challenge") and not self._authorised():
            self._answer(401, "application/json", b'{"errors":[{"code":"UNAUTHORIZED"}]}',
                         {"WWW-Authenticate": self.settings["challenge"]})  # fmt: skip
        elif path == "/v2/":
            self._answer(200, "application/json", b"{}")
        elif path == f"/v2/{REPOSITORY}/tags/list":
            self._answer(200, "application/json", json.dumps({"name": REPOSITORY, "tags": [TAG, "0.9"]}).encode())
        elif self.settings.get("status") and "/manifests/" in path:
            self._answer(self.settings["status"], "application/json", b'{"errors":[{"code":"TOOMANYREQUESTS"}]}',
                         self.settings.get("headers") or {})  # fmt: skip
        elif path.startswith("/v2/") and path.rpartition("/")[2] in self.files and (path.split("/")[-1] != TAG or REPOSITORY in path):
            key = path.rpartition("/")[2]
            kind, data = self.files[key]
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            self._answer(200, kind, data, {"Docker-Content-Digest": digest})
        else:
            code = "MANIFEST_UNKNOWN" if path.startswith(f"/v2/{REPOSITORY}/") else "NAME_UNKNOWN"
            self._answer(404, "application/json", json.dumps({"errors": [{"code": code}]}).encode())

    def _granted(self) -> list[dict[str, Any]]:
        """What the scope asks for, without push where that is denied."""
        scope = unquote(self.path.partition("scope=")[2].partition("&")[0]).split(":")
        actions = [word for word in scope[-1].split(",") if word != "push" or self.settings.get("push") != "denied"]
        return [{"type": "repository", "name": ":".join(scope[1:-1]), "actions": actions}]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.settings.get("challenge") and not self._authorised():
            self._answer(401, "application/json", b'{"errors":[{"code":"UNAUTHORIZED"}]}',
                         {"WWW-Authenticate": self.settings["challenge"]})  # fmt: skip
        elif self.settings.get("push") == "denied":
            body = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
            self._answer(403, "application/json", body)
        else:
            self._answer(202, "application/json", b"", {"Location": f"{self.path.rstrip('/')}/1"})

    def do_PATCH(self) -> None:
        data = self._body()
        if self._too_big(data):
            return
        self.uploads[self.path.partition("?")[0]] = self.uploads.get(self.path.partition("?")[0], b"") + data
        self._answer(202, "application/json", b"", {"Location": self.path, "Range": f"0-{max(len(data) - 1, 0)}"})

    def do_PUT(self) -> None:
        """The end of an upload, or a manifest: kept, so that the client can look whether it is there."""
        data = self.uploads.pop(self.path.partition("?")[0], b"") + self._body()
        if self._too_big(data):
            return
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.files[digest] = (self.headers.get("Content-Type", "application/octet-stream"), data)
        self._answer(201, "application/json", b"", {"Docker-Content-Digest": digest, "Location": self.path.partition("?")[0]})

    def _too_big(self, data: bytes) -> bool:
        limit = self.settings.get("limit")
        if limit and len(data) > limit:
            self._answer(413, "text/html", b"<html><head><title>413 Request Entity Too Large</title></head></html>")
            return True
        return False

    def _body(self) -> bytes:
        """Of a known length or in chunks."""
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while count := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(count)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _authorised(self) -> bool:
        """A token whose audience is ours and whose time has come, as the reference registry asks."""
        import time

        word = self.headers.get("Authorization", "").partition("Bearer ")[2].split(".")
        if len(word) != 3:
            return False
        claims = json.loads(base64.urlsafe_b64decode(word[1] + "=="))
        return bool(
            claims.get("aud") == "site" and claims.get("nbf", 0) - 60 <= time.time() <= claims.get("exp", 0) + 60
        )

    def _answer(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "nginx/1.24.0"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _jwt(claims: dict[str, Any]) -> str:
    import time

    now = time.time()
    full = {"aud": "site", "nbf": now + claims.get("shift", 0), "exp": now + 300, **claims}
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, full)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), "x"])


def main(path: str) -> None:
    Handler.settings = json.loads(Path(path).read_text())
    Handler.files = content(Handler.settings.get("platforms") or ["linux/amd64"])
    address, port = Handler.settings["listen"]
    with ThreadingHTTPServer((address, port), Handler) as server:
        if Handler.settings.get("certificate"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(Handler.settings["certificate"], Handler.settings["key"])
            server.socket = context.wrap_socket(server.socket, server_side=True)
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
