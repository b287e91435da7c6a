"""The distribution protocol for one repository on one registry (OCI distribution-spec 1.1, end-1 to end-11)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit

import msgspec
from urllib3 import BaseHTTPResponse

from dockyard.errors import Cancelled, DockyardError
from dockyard.lib.notjson import NOT_JSON
from dockyard.oci import Digest, algorithm_of, is_digest

from .challenge import repository_scope
from .errors import BAD_MANIFEST, BLOB_MISMATCH, DIGEST_MISMATCH, UPLOAD_FAILED
from .manifests import ACCEPT, sniff_media_type
from .model import RawManifest
from .session import Session
from .transport import discard

log = logging.getLogger(__name__)

MAX_MANIFEST = 4 << 20
"""Bytes; what the specification asks registries to accept at least, and dockerd's own limit."""
MAX_CONFIG = 8 << 20
MAX_TAG_PAGES = 1000


class Repository:
    """Blocking; one object may be used from several threads at once."""

    def __init__(self, session: Session, path: str, *, push: bool = False) -> None:
        self.session = session
        self.path = path
        self._scopes = (repository_scope(path, "pull", *(("push",) if push else ())),)

    # -- reading -----------------------------------------------------------------------------------------------------

    def manifest(self, reference: str) -> RawManifest:
        """By tag or digest; a digest is verified. Raises NotFound and the other errors of ``answers``."""
        url = self._url(f"manifests/{reference}")
        response = self.session.request(
            "GET", url, want=(200,), scopes=self._scopes, headers={"Accept": ", ".join(ACCEPT)}
        )
        raw = self.session.read(response, MAX_MANIFEST)
        algorithm = algorithm_of(reference) if is_digest(reference) else "sha256"
        digest = Digest(f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}")
        if is_digest(reference) and digest != reference:
            raise DIGEST_MISMATCH(digest=reference, found=digest)
        return RawManifest(sniff_media_type(raw, response.headers.get("Content-Type", "")), digest, raw)

    def blob_bytes(self, digest: Digest, limit: int = MAX_CONFIG) -> bytes:
        data = self.session.read(self.open_blob(digest), limit)
        if hashlib.new(algorithm_of(digest), data).hexdigest() != digest.partition(":")[2]:
            raise BLOB_MISMATCH(digest=digest)
        return data

    def open_blob(self, digest: Digest, offset: int = 0) -> BaseHTTPResponse:
        """The response, to be read from its first byte: at ``offset`` if its status is 206, else at 0."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        want = (200, 206) if offset else (200,)
        return self.session.request(
            "GET", self._url(f"blobs/{digest}"), want=want, scopes=self._scopes, headers=headers
        )

    def has_blob(self, digest: Digest) -> bool:
        response = self.session.request("HEAD", self._url(f"blobs/{digest}"), want=(200, 404), scopes=self._scopes)
        discard(response)
        return response.status == 200

    def tags(self) -> list[str]:
        found: list[str] = []
        url = self._url("tags/list")
        for _ in range(MAX_TAG_PAGES):
            response = self.session.request("GET", url, want=(200,), scopes=self._scopes)
            found += read_tags(self.session.read(response, MAX_MANIFEST))
            following = next_page(response.headers.get("Link", ""))
            if not following:
                break
            url = urljoin(url, following)
        return sorted(set(found))  # not every registry sorts

    # -- writing -----------------------------------------------------------------------------------------------------

    def mount_blob(self, digest: Digest, source: str) -> str:
        """Mount from repository ``source``: "" if it worked, else the location of the upload that began instead."""
        scopes = (*self._scopes, repository_scope(source, "pull"))
        query = urlencode({"mount": digest, "from": source})
        response = self.session.request(
            "POST", self._url(f"blobs/uploads/?{query}"), want=(201, 202), scopes=scopes, body=b""
        )
        discard(response)
        return "" if response.status == 201 else self._location(response)

    def start_upload(self) -> str:
        response = self.session.request("POST", self._url("blobs/uploads/"), want=(202,), scopes=self._scopes, body=b"")
        discard(response)
        return self._location(response)

    def cancel_upload(self, location: str) -> None:
        discard(self.session.request("DELETE", location, want=(204, 202, 404, 405), scopes=self._scopes))

    def send_stream(self, location: str, chunks: Iterable[bytes]) -> str:
        """One streamed PATCH, as dockerd's blob_writer.go sends it; the location to go on with."""
        headers = {"Content-Type": "application/octet-stream"}
        response = self.session.request(
            "PATCH", location, want=(202, 201, 204), scopes=self._scopes, headers=headers, body=chunks
        )
        discard(response)
        return self._location(response)

    def send_chunks(self, location: str, data: Iterable[bytes], size: int) -> str:
        """PATCHes of ``size`` bytes with Content-Range (end-5): for proxies that bound a request's body."""
        offset = 0
        for chunk in regroup(data, size):
            span = f"{offset}-{offset + len(chunk) - 1}"
            headers = {"Content-Type": "application/octet-stream", "Content-Range": span}
            response = self.session.request(
                "PATCH", location, want=(202, 201, 204), scopes=self._scopes, headers=headers, body=chunk
            )
            discard(response)
            location = self._location(response)
            offset += len(chunk)
        return location

    def finish_upload(self, location: str, digest: Digest, body: bytes = b"") -> None:
        separator = "&" if urlsplit(location).query else "?"
        url = f"{location}{separator}{urlencode({'digest': digest})}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(body))}
        discard(self.session.request("PUT", url, want=(201, 204), scopes=self._scopes, headers=headers, body=body))

    def put_manifest(self, reference: str, media_type: str, raw: bytes) -> None:
        headers = {"Content-Type": media_type}
        response = self.session.request(
            "PUT", self._url(f"manifests/{quote(reference, safe=':')}"), want=(201,), scopes=self._scopes,
            headers=headers, body=raw,
        )  # fmt: skip
        discard(response)

    # ----------------------------------------------------------------------------------------------------------------

    def _url(self, tail: str) -> str:
        return self.session.url(f"/v2/{self.path}/{tail}")

    def _location(self, response: BaseHTTPResponse) -> str:
        location = response.headers.get("Location")
        if not location:
            raise UPLOAD_FAILED(what="a blob", host=self.session.endpoint.host, cause="the answer names no Location")
        return urljoin(response.url or self.session.endpoint.base + "/v2/", location)


T = TypeVar("T")


def first_good(sources: Sequence[Repository], ask: Callable[[Repository], T]) -> T:
    """The first answer; the error of the last source, the registry itself, is the one that counts."""
    for source in sources[:-1]:
        try:
            return ask(source)
        except Cancelled:
            raise
        except DockyardError as error:
            log.info("%s does not serve %s, trying the next: %s", source.session.endpoint.base, source.path, error)
    return ask(sources[-1])


def next_page(link: str) -> str:
    """The target of ``Link: <…>; rel="next"`` (RFC 8288), "" if there is none."""
    target, _, parameters = link.partition(">")
    return target.strip().removeprefix("<") if 'rel="next"' in parameters or "rel=next" in parameters else ""


def read_tags(raw: bytes) -> list[str]:
    try:
        return [str(tag) for tag in msgspec.json.decode(raw)["tags"] or []]
    except (*NOT_JSON, KeyError, TypeError) as error:
        raise BAD_MANIFEST(ref="the tag list", cause=error) from error


def regroup(data: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of ``size``, the last one shorter."""
    held = bytearray()
    for part in data:
        held += part
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)

