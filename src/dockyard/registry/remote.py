"""Client of another registry, for proxy cache and mirroring. Blocking (urllib3); callers run it in their lane.

Speaks the token specification with and without a login; follows redirects of blobs (buckets) without taking the
Authorization header along.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3

from dockyard.registry.addresses import forbidden
from dockyard.registry.errors import UPSTREAM_FAILED
from dockyard.registry.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from dockyard.registry.names import digest_of

_TIMEOUT = urllib3.Timeout(connect=10.0, read=60.0)
_ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, "*/*"))
_MANIFEST_MAX = 4 * 1024 * 1024
_LIST_MAX = 16 * 1024 * 1024
_PIECE = 256 * 1024
_PAGES_MAX = 1000
_REDIRECTS_MAX = 5
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


def netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


@dataclass(frozen=True, slots=True)
class RemoteManifest:
    digest: str
    media_type: str
    content: bytes


class Remote:
    """`url` is scheme and host, such as https://registry-1.docker.io."""

    def __init__(self, url: str, username: str = "", password: str = "") -> None:
        self.url = url.rstrip("/")
        self._basic = ""
        if username:
            self._basic = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        self._tokens: dict[str, str] = {}
        self._allowed: set[str] = set()
        self._pool = urllib3.PoolManager(timeout=_TIMEOUT, retries=False, maxsize=4)

    # ---- requests

    def _failed(self, reason: str, status: int | None = None) -> Exception:
        return UPSTREAM_FAILED(upstream=netloc(self.url), reason=reason, answered=status or 0)

    def _join(self, base: str, told: str) -> str:
        """Where a Location or Link of the other side leads. Raises UPSTREAM_FAILED."""
        try:
            return urljoin(base, told)
        except ValueError as error:
            raise self._failed(f"an address that is none: {error}") from error

    def _check(self, url: str) -> None:
        """Redirects and realms are somebody else's words: each new host is looked at."""
        host = netloc(url)
        if host not in self._allowed:
            if reason := forbidden(url):
                raise self._failed(reason)
            self._allowed.add(host)

    def _send(self, method: str, url: str, headers: dict[str, str], body: Any, token: str) -> Any:
        sent = dict(headers)
        if token:
            sent["Authorization"] = token
        self._check(url)
        try:
            return self._pool.request(method, url, headers=sent, body=body, preload_content=False, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise self._failed(str(error)[:200]) from error

    def request(self, method: str, path: str, scope: str, *, headers: dict[str, str] | None = None, body: Any = None,
                ok: tuple[int, ...] = (200,)) -> Any:  # fmt: skip
        """The response, unread. A body that is an iterator must not need a second try: call `authorize` first."""
        url = self._join(self.url + "/", path)
        token = self._tokens.get(scope, self._basic)
        answer = self._send(method, url, headers or {}, body, token)
        if answer.status == 401 and not isinstance(body, Iterator):
            token = self._login(answer.headers.get("www-authenticate", ""), scope)
            answer.drain_conn()
            answer = self._send(method, url, headers or {}, body, token)
        for _ in range(_REDIRECTS_MAX):
            if answer.status not in {301, 302, 303, 307, 308} or method not in {"GET", "HEAD"}:
                break
            target = self._join(url, answer.headers.get("location", ""))
            answer.drain_conn()
            same = netloc(target) == netloc(self.url)
            answer = self._send(method, target, headers or {}, None, token if same else "")
        if answer.status not in ok:
            detail = answer.read(2000).decode("utf-8", "replace")
            answer.release_conn()
            raise self._failed(f"{method} {path}: {answer.status} {detail}"[:300], answer.status)
        return answer

    def authorize(self, scope: str) -> None:
        """Get a token before sending a stream."""
        answer = self._send("GET", self.url + "/v2/", {}, None, self._tokens.get(scope, self._basic))
        answer.drain_conn()
        if answer.status == 401:
            self._login(answer.headers.get("www-authenticate", ""), scope)

    def _login(self, challenge: str, scope: str) -> str:
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "basic":
            return self._basic
        asked = dict(_PARAMETER.findall(rest))
        if kind.lower() != "bearer" or "realm" not in asked:
            raise self._failed("no challenge that we can answer", 401)
        query = urlencode({"service": asked.get("service", ""), "scope": scope})
        answer = self._send("GET", f"{asked['realm']}?{query}", {}, None, self._basic)
        if answer.status != 200:
            answer.drain_conn()
            raise self._failed(f"token server answered {answer.status}", answer.status)
        body = self._document(answer)
        token = body.get("token") or body.get("access_token")
        if not token:
            raise self._failed("token server sent no token")
        self._tokens[scope] = f"Bearer {token}"
        return self._tokens[scope]

    def _document(self, answer: Any) -> dict[str, Any]:
        """A JSON object of bounded size. Raises UPSTREAM_FAILED."""
        raw = answer.read(_LIST_MAX + 1)
        answer.release_conn()
        try:
            found = json.loads(raw) if len(raw) <= _LIST_MAX else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._failed("the answer is no JSON object of reasonable size")
        return found

    # ---- reading

    def head_manifest(self, name: str, reference: str) -> str:
        """Its digest, "" when the upstream does not tell."""
        answer = self.request("HEAD", f"/v2/{name}/manifests/{reference}", _pull(name), headers={"Accept": _ACCEPT})
        answer.drain_conn()
        return str(answer.headers.get("docker-content-digest", ""))

    def get_manifest(self, name: str, reference: str) -> RemoteManifest:
        answer = self.request("GET", f"/v2/{name}/manifests/{reference}", _pull(name), headers={"Accept": _ACCEPT})
        content = answer.read(_MANIFEST_MAX + 1)
        answer.release_conn()
        if len(content) > _MANIFEST_MAX:
            raise self._failed("manifest too large")
        algorithm = reference.partition(":")[0] if ":" in reference else "sha256"
        digest = digest_of(content, algorithm)
        if ":" in reference and digest != reference:
            raise self._failed(f"manifest is {digest}, not {reference}")
        return RemoteManifest(digest, answer.headers.get("content-type", ""), content)

    def blob(self, name: str, digest: str) -> Iterator[bytes]:
        answer = self.request("GET", f"/v2/{name}/blobs/{digest}", _pull(name))
        try:
            yield from answer.stream(_PIECE, decode_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise self._failed(str(error)[:200]) from error
        finally:
            answer.release_conn()

    def tags(self, name: str) -> list[str]:
        found: list[str] = []
        path = f"/v2/{name}/tags/list?n=1000"
        for _ in range(_PAGES_MAX):
            answer = self.request("GET", path, _pull(name))
            tags = self._document(answer).get("tags") or []
            if not isinstance(tags, list):
                raise self._failed("the tag list is none")
            found += [tag for tag in tags if isinstance(tag, str)]
            link = re.match(r"<([^>]+)>", answer.headers.get("link", ""))
            if link is None:
                break
            path = link[1]
        return found

    # ---- writing

    def has_blob(self, name: str, digest: str) -> bool:
        answer = self.request("HEAD", f"/v2/{name}/blobs/{digest}", _push(name), ok=(200, 404))
        answer.drain_conn()
        return bool(answer.status == 200)

    def put_blob(self, name: str, digest: str, size: int, data: Iterator[bytes]) -> None:
        begun = self.request("POST", f"/v2/{name}/blobs/uploads/", _push(name), ok=(202,))
        begun.drain_conn()
        place = self._join(self.url, begun.headers.get("location", ""))
        place += ("&" if "?" in place else "?") + urlencode({"digest": digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self.request("PUT", place, _push(name), headers=headers, body=data, ok=(201,)).drain_conn()

    def put_manifest(self, name: str, reference: str, media_type: str, content: bytes) -> None:
        self.request(
            "PUT", f"/v2/{name}/manifests/{reference}", _push(name), headers={"Content-Type": media_type},
            body=content, ok=(201,),
        ).drain_conn()  # fmt: skip

    def close(self) -> None:
        self._pool.clear()


def _pull(name: str) -> str:
    return f"repository:{name}:pull"


def _push(name: str) -> str:
    return f"repository:{name}:pull,push"
