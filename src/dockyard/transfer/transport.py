"""HTTP under the registry client: pools, TLS, proxies; foreign errors are translated here and nowhere else.

urllib3 never retries or redirects for us: a redirect must lose the credentials when it leaves the host (blobs are often
served by a CDN), and what may be sent again is known only above.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3 import exceptions as failures

from dockyard.errors import DockyardError

from .errors import CERTS_DIR, PLAIN_HTTP, TLS_FAILED, TLS_UNTRUSTED, UNREACHABLE
from .settings import CONNECT_TIMEOUT, READ_TIMEOUT, Endpoint, Settings

urllib3.disable_warnings(failures.InsecureRequestWarning)  # insecure-registries is the administrator's own word

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
POOL_SIZE = 16
"""Kept connections for one host; more than all concurrent blobs of one direction."""

Body = bytes | Iterable[bytes] | None
Trust = tuple[tuple[str, int, int], ...]


class Transport:
    """Shared by all operations; safe in threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, bool, str], tuple[Trust, urllib3.PoolManager]] = {}

    def close(self) -> None:
        with self._lock:
            for _, pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def request(
        self, endpoint: Endpoint, method: str, url: str, headers: Mapping[str, str], body: Body = None
    ) -> urllib3.BaseHTTPResponse:
        """The response with its body unread; GET and HEAD follow redirects. Raises the errors of ``translate``."""
        sent = {"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity", **headers}
        for _ in range(MAX_REDIRECTS):
            response = self._once(endpoint, method, url, sent, body)
            response.url = url  # urllib3 knows only the path
            target = response.headers.get("Location")
            if method not in ("GET", "HEAD") or response.status not in REDIRECTS or not target:
                return response
            discard(response)
            target = urljoin(url, target)
            if urlsplit(target).netloc != urlsplit(url).netloc:
                sent.pop("Authorization", None)
            url = target
        raise UNREACHABLE(operation=operation(method, url), cause=f"stopped after {MAX_REDIRECTS} redirects")

    def _once(
        self, endpoint: Endpoint, method: str, url: str, headers: Mapping[str, str], body: Body
    ) -> urllib3.BaseHTTPResponse:
        pool = self._pool(endpoint, url)
        try:
            return pool.request(
                method, url, headers=dict(headers), body=body, preload_content=False, decode_content=False,
                redirect=False, retries=False,
            )  # fmt: skip
        except (failures.HTTPError, OSError) as error:
            raise translate(error, method, url) from error

    def _pool(self, endpoint: Endpoint, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        proxy = self._settings.proxies.for_url(parts.scheme, parts.hostname or "", port)
        key = (endpoint.host, endpoint.insecure, proxy)
        trust = trusted(endpoint, self._settings.certs_dirs)
        with self._lock:
            if key not in self._pools or self._pools[key][0] != trust:  # connections in use go on, new ones follow now
                self._pools[key] = (trust, self._make_pool(endpoint, proxy))
            return self._pools[key][1]

    def _make_pool(self, endpoint: Endpoint, proxy: str) -> urllib3.PoolManager:
        context = tls_context(endpoint, self._settings.certs_dirs)
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)
        if not proxy:
            return urllib3.PoolManager(maxsize=POOL_SIZE, ssl_context=context, timeout=timeout)
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        login = urllib3.util.make_headers(
            proxy_basic_auth=f"{parts.username}:{parts.password or ''}" if parts.username else None
        )
        base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return urllib3.ProxyManager(base, maxsize=POOL_SIZE, ssl_context=context, timeout=timeout, proxy_headers=login)


def trusted(endpoint: Endpoint, certs_dirs: Iterable[Path]) -> Trust:
    """What tells one state of a registry's certs.d folders from another: a file put there counts at once."""
    found = []
    for directory in certs_dirs:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(directory / endpoint.host):
                state = entry.stat()
                found.append((entry.path, state.st_mtime_ns, state.st_size))
    return tuple(sorted(found))


def tls_context(endpoint: Endpoint, certs_dirs: Iterable[Path]) -> ssl.SSLContext:
    """The system's trust plus ``<certs.d>/<host[:port]>``: ``*.crt`` authorities, ``*.cert`` + ``*.key`` client pairs.

    Raises InvalidParameter with Docker's sentences (moby registry/registry.go ReadCertsDirectory).
    """
    context = ssl.create_default_context()
    if endpoint.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for directory in certs_dirs:
        folder = directory / endpoint.host
        if folder.is_dir():
            _load_certs(context, folder)
    return context


def _load_certs(context: ssl.SSLContext, folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        try:
            if file.suffix == ".crt":
                context.load_verify_locations(cafile=str(file))
            elif file.suffix == ".cert":
                key = file.with_suffix(".key")
                if not key.exists():
                    raise CERTS_DIR(
                        cause=f"missing key {key.name} for client certificate {file.name}. "
                        "CA certificates must use the extension .crt"
                    )
                context.load_cert_chain(str(file), str(key))
            elif file.suffix == ".key" and not file.with_suffix(".cert").exists():
                raise CERTS_DIR(cause=f"missing client certificate {file.stem}.cert for key {file.name}")
        except (ssl.SSLError, OSError) as error:
            raise CERTS_DIR(cause=f"cannot load {file}: {error}") from error


def operation(method: str, url: str) -> str:
    """``Get "https://host/v2/"``: how Go prints a request in its errors, which clients and people search for."""
    return f'{method.capitalize()} "{url}"'


def discard(response: urllib3.BaseHTTPResponse) -> None:
    """Give the connection back if little is left to read, else close it."""
    if int(response.headers.get("Content-Length") or 0) <= 65536 and "chunked" not in response.headers.get(
        "Transfer-Encoding", ""
    ):
        response.drain_conn()
    else:
        response.close()
    response.release_conn()


def translate(error: Exception, method: str, url: str) -> DockyardError:
    parts = urlsplit(url)
    host = parts.netloc
    what = operation(method, url)
    cause = _root(error)
    if isinstance(error, failures.ProxyError):
        return UNREACHABLE(operation=what, cause=f"proxyconnect tcp: {cause}")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TLS_UNTRUSTED(operation=what, host=host, cause=_certificate_fault(cause))
    if isinstance(cause, ssl.SSLError):
        if cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
            return PLAIN_HTTP(operation=what, host=host)
        return TLS_FAILED(operation=what, cause=f"remote error: tls: {cause.reason or cause}".lower())
    dial = f"dial tcp {parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    if isinstance(error, failures.NameResolutionError) or isinstance(cause, socket.gaierror):
        return UNREACHABLE(operation=what, cause=f"dial tcp: lookup {parts.hostname}: no such host")
    if isinstance(error, failures.ConnectTimeoutError) and isinstance(cause, TimeoutError):
        return UNREACHABLE(operation=what, cause=f"{dial}: i/o timeout")
    if isinstance(error, failures.ReadTimeoutError) or isinstance(cause, TimeoutError):
        return UNREACHABLE(operation=what, cause=f"no answer for {READ_TIMEOUT:.0f} s (Client.Timeout exceeded)")
    if isinstance(error, failures.NewConnectionError):
        code = cause.errno if isinstance(cause, OSError) and cause.errno else 0
        text = {errno.ECONNREFUSED: "connection refused", errno.ENETUNREACH: "network is unreachable"}.get(code)
        return UNREACHABLE(operation=what, cause=f"{dial}: connect: {text or cause}")
    return UNREACHABLE(operation=what, cause=str(cause))


def _root(error: BaseException) -> BaseException:
    """The innermost cause: urllib3 keeps it in ``__cause__``, ``__context__`` or as the first argument."""
    for _ in range(8):
        inner = error.__cause__ or error.__context__
        if inner is None:
            inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if inner is None:
            break
        error = inner
    return error


def _certificate_fault(error: ssl.SSLCertVerificationError) -> str:
    """OpenSSL's verify codes (x509_vfy.h) in the words of Go's crypto/x509."""
    match error.verify_code:
        case 18 | 19 | 20 | 21:
            return "certificate signed by unknown authority"
        case 9 | 10:
            return "certificate has expired or is not yet valid"
        case 62 | 64:
            return f"certificate is not valid for this name: {error.verify_message}"
    return error.verify_message
