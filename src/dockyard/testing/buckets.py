"""Object storage for tests: as much of Google's XML API and of Azure's Blob service as obstore speaks, in memory.

The suite that runs on these was also run by hand on Azurite 3; fake-gcs-server 1.56 takes uploads by Google's other API
only, so Google's half follows the reference of the XML API. Lists come in short pages, a name is there only when its
last part is, a copy needs its source, and Azure's requests must be signed. `Objects.failing` makes the service fail as
buckets do.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_PAGE = 3
"""Names in one page of a list; a real one has a thousand or more."""
Answer = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True, slots=True)
class Stored:
    data: bytes
    modified: float

    @property
    def headers(self) -> dict[str, str]:
        return {"ETag": f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"',
                "Last-Modified": formatdate(self.modified, usegmt=True), "Content-Type": "application/octet-stream"}  # fmt: skip


@dataclass
class Objects:
    """What is stored, by name; parts of what is not whole yet, by upload (or name) and part."""

    whole: dict[str, Stored] = field(default_factory=dict)
    parts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    failing: Callable[[str, str], int] = lambda method, path: 0
    """(method, path) -> the status that the service fails with, or 0."""

    def put(self, name: str, data: bytes) -> dict[str, str]:
        self.whole[name] = Stored(data, time.time())
        return self.whole[name].headers

    def page(self, prefix: str, after: str) -> tuple[list[tuple[str, Stored]], str]:
        """(names of one page with what they hold, the mark of the next page or "")."""
        found = sorted(name for name in self.whole if name.startswith(prefix) and name > after)
        more = found[_PAGE - 1] if len(found) > _PAGE else ""
        return [(name, self.whole[name]) for name in found[:_PAGE]], more


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: ClassVar[Objects]

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(target.query, keep_blank_values=True).items()}
        status = self.objects.failing(self.command, unquote(target.path))
        if status:
            answer: Answer = (status, {}, b"<Error><Code>InternalError</Code></Error>")
        else:
            with self.objects.lock:
                answer = self.answer(unquote(target.path), query, body)
        self.send_response(answer[0])
        for key, value in answer[1].items():
            self.send_header(key, value)
        if "Content-Length" not in answer[1]:
            self.send_header("Content-Length", str(len(answer[2])))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer[2])

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""

    def answer(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        raise NotImplementedError

    def read(self, name: str) -> Answer:
        found = self.objects.whole.get(name)
        if found is None:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            return 200, found.headers | {"Content-Length": str(len(found.data))}, found.data
        first, last = int(wanted[1]), min(int(wanted[2] or len(found.data)), len(found.data) - 1)
        if first >= len(found.data):
            return 416, {"Content-Range": f"bytes */{len(found.data)}"}, b""
        return 206, found.headers | {"Content-Range": f"bytes {first}-{last}/{len(found.data)}"}, found.data[first : last + 1]

    def remove(self, name: str, done: int) -> Answer:
        return (404, {}, b"<Error><Code>NoSuchKey</Code></Error>") if self.objects.whole.pop(name, None) is None else (done, {}, b"")

    def copy(self, source: str, name: str, done: int) -> Answer:
        found = self.objects.whole.get(source)
        if found is None:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        return done, self.objects.put(name, found.data), b"<CopyObjectResult/>"


class GoogleHandler(_Handler):
    """/BUCKET/NAME of Google's XML API (https://cloud.google.com/storage/docs/xml-api/reference-methods)."""

    def answer(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        _, bucket, name = path.split("/", 2) if path.count("/") > 1 else (*path.split("/", 1), "")
        if not name:
            return self._list(query)
        if self.command in {"GET", "HEAD"}:
            return self.read(name)
        source = self.headers.get("x-goog-copy-source")
        if source:
            return self.copy(unquote(source).removeprefix(f"{bucket}/"), name, 200)
        if self.command == "DELETE" and "uploadId" not in query:
            return self.remove(name, 204)
        if "uploads" in query or "uploadId" in query:
            return self._multipart(name, query, body)
        return 200, self.objects.put(name, body), b""

    def _list(self, query: dict[str, str]) -> Answer:
        found, more = self.objects.page(query.get("prefix", ""), query.get("continuation-token", ""))
        rows = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(it.data)}</Size><ETag>{escape(it.headers['ETag'])}</ETag>"
            f"<LastModified>{datetime.fromtimestamp(it.modified, UTC).isoformat()}</LastModified></Contents>"
            for name, it in found
        )
        token = f"<NextContinuationToken>{escape(more)}</NextContinuationToken>" if more else ""
        return 200, {}, f"<ListBucketResult>{rows}{token}</ListBucketResult>".encode()

    def _multipart(self, name: str, query: dict[str, str], body: bytes) -> Answer:
        upload, parts = query.get("uploadId", ""), self.objects.parts
        if not upload:
            upload = f"{name}#{len(parts)}"
            parts[upload] = {}
            return 200, {}, f"<InitiateMultipartUploadResult><UploadId>{escape(upload)}</UploadId></InitiateMultipartUploadResult>".encode()
        if upload not in parts:
            return 404, {}, b"<Error><Code>NoSuchUpload</Code></Error>"
        if self.command == "DELETE":
            del parts[upload]
            return 204, {}, b""
        if self.command == "PUT":
            parts[upload][query["partNumber"]] = body
            return 200, {"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'}, b""
        numbers = re.findall(r"<PartNumber>(\d+)</PartNumber>", body.decode())
        if any(number not in parts[upload] for number in numbers):
            return 400, {}, b"<Error><Code>InvalidPart</Code></Error>"
        held = parts.pop(upload)
        headers = self.objects.put(name, b"".join(held[number] for number in numbers))
        return 200, {}, f"<CompleteMultipartUploadResult><ETag>{escape(headers['ETag'])}</ETag></CompleteMultipartUploadResult>".encode()


class AzureHandler(_Handler):
    """/ACCOUNT/CONTAINER/NAME of the Blob service (https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api)."""

    def answer(self, path: str, query: dict[str, str], body: bytes) -> Answer:
        if not (self.headers.get("Authorization") or "").startswith("SharedKey "):
            return 403, {}, b"<Error><Code>AuthenticationFailed</Code></Error>"
        what = query.get("comp", "")
        name = path.split("/", 3)[3] if path.count("/") > 2 else ""
        if what == "list":
            return self._list(query)
        if what == "batch":
            return self._batch(body)
        if self.command in {"GET", "HEAD"}:
            return self.read(name)
        if self.command == "DELETE":
            return self.remove(name, 202)
        return self._put(name, what, query, body)

    def _put(self, name: str, what: str, query: dict[str, str], body: bytes) -> Answer:
        objects, source = self.objects, self.headers.get("x-ms-copy-source")
        if source:
            answer = self.copy(unquote(urlsplit(source).path).split("/", 3)[3], name, 202)
            return answer[0], answer[1] | {"x-ms-copy-status": "success"}, b""
        if what == "block":
            objects.parts.setdefault(name, {})[query["blockid"]] = body
            return 201, {}, b""
        if what == "blocklist":
            wanted = re.findall(r"<(?:Uncommitted|Latest)>([^<]+)</", body.decode())
            parts = objects.parts.get(name, {})
            if any(block not in parts for block in wanted):
                return 400, {}, b"<Error><Code>InvalidBlockList</Code></Error>"
            objects.parts.pop(name, None)
            return 201, objects.put(name, b"".join(parts[block] for block in wanted)), b""
        if self.headers.get("x-ms-blob-type") != "BlockBlob":
            return 400, {}, b"<Error><Code>MissingRequiredHeader</Code></Error>"
        return 201, objects.put(name, body), b""

    def _list(self, query: dict[str, str]) -> Answer:
        found, more = self.objects.page(query.get("prefix", ""), query.get("marker", ""))
        rows = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{it.headers['Last-Modified']}</Last-Modified>"
            f"<Etag>{escape(it.headers['ETag'])}</Etag><Content-Length>{len(it.data)}</Content-Length>"
            "<Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>"
            for name, it in found
        )
        return 200, {"Content-Type": "application/xml"}, (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="x" ContainerName="y">'
            f"<Blobs>{rows}</Blobs><NextMarker>{escape(more)}</NextMarker></EnumerationResults>"
        ).encode()  # fmt: skip

    def _batch(self, body: bytes) -> Answer:
        """Deletions, each with an answer of its own; the batch itself is accepted whatever they say."""
        boundary, parts = "batchresponse_tests", []
        pattern = rb"Content-ID: (\d+)\r\n.*?DELETE (\S+) HTTP/1\.1"
        for number, target in re.findall(pattern, body, re.DOTALL):
            gone = self.remove(unquote(urlsplit(target.decode()).path).split("/", 3)[3], 202)[0] == 202
            line = "202 Accepted" if gone else "404 The specified blob does not exist."
            code = "" if gone else "x-ms-error-code: BlobNotFound\r\n"
            parts.append(f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: {number.decode()}\r\n\r\n"
                         f"HTTP/1.1 {line}\r\n{code}x-ms-request-id: {number.decode()}\r\n\r\n")  # fmt: skip
        return 202, {"Content-Type": f"multipart/mixed; boundary={boundary}"}, ("".join(parts) + f"--{boundary}--\r\n").encode()


@contextlib.contextmanager
def object_service(kind: type[_Handler]) -> Iterator[tuple[str, Objects]]:
    """(URL of the service on loopback, what it holds)."""
    objects = Objects()
    bound = type("Bound", (kind,), {"objects": objects})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    thread = threading.Thread(target=server.serve_forever, name="object-service")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", objects
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
