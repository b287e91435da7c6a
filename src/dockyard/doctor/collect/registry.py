"""A registry as the engine meets it: name, connection, TLS, challenge, token, manifest; asked from the engine's network
namespace, with the engine's trust (system roots and certs.d). Follows the distribution spec and the token protocol.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from msgspec.structs import replace

from dockyard.doctor.collect.namespaces import inside
from dockyard.doctor.facts import Certificate, Facts, Registry

STEP_TIMEOUT = 3.0
MAX_BODY = 4 << 20
_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"


def split_reference(name: str) -> tuple[str, str, str]:
    """Host, repository and tag or digest, with Docker's defaults (registry-1.docker.io, library/, latest)."""
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = "registry-1.docker.io", name if slash else f"library/{name}"
    rest, _, digest = rest.partition("@")
    repository, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = rest, "latest"
    return first, repository, digest or tag


def read_registry(name: str, facts: Facts, *, image: bool, push: bool = False) -> Registry:
    """Ask the registry of ``name`` (a host, or an image reference). Never raises for what it finds. ``push``: ask for a
    token that allows pushing too; nothing is uploaded."""
    host, repository, reference = split_reference(name) if image else (name, "", "")
    root = f"/proc/{facts.engine.pid}/root" if facts.engine.pid else ""
    registry = Registry(host, repository=repository, reference=reference, certs_d=_certs_d(root), asked_at=time.time())
    work = _Asking(registry, f"{root}/etc/docker/certs.d/{host}", _proxy(facts), "pull,push" if push else "pull")
    try:
        return inside(facts.engine.pid or os.getpid(), work.run, STEP_TIMEOUT * 6)
    except (OSError, TimeoutError) as error:
        return replace(work.registry, connect=work.registry.connect or str(error))


def _certs_d(root: str) -> list[str]:
    top = f"{root}/etc/docker/certs.d"
    found = []
    with contextlib.suppress(OSError):
        for directory in sorted(os.listdir(top)):
            with contextlib.suppress(OSError):
                found += [f"{directory}/{name}" for name in sorted(os.listdir(f"{top}/{directory}"))] or [
                    f"{directory}/"
                ]
    return found


def _proxy(facts: Facts) -> str:
    """The proxy of the caller's shell, "host:port", where the engine has none."""
    if facts.engine.proxies or facts.engine.info.get("HttpsProxy"):
        return ""
    names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
    return next((urlsplit(facts.caller.environ[name]).netloc for name in names if facts.caller.environ.get(name)), "")


class _Asking:
    def __init__(self, registry: Registry, certs: str, proxy: str, actions: str) -> None:
        self.registry, self.certs, self.proxy, self.actions = registry, certs, proxy, actions
        self.name, _, port = registry.host.partition(":")
        self.port = int(port) if port.isdigit() else 443
        self.token = ""

    def _set(self, **changes: Any) -> None:
        self.registry = replace(self.registry, **changes)

    def run(self) -> Registry:
        try:
            found = socket.getaddrinfo(self.name, self.port, socket.AF_INET, socket.SOCK_STREAM)
        except OSError as error:
            self._set(connect=f"dns: {error.strerror or error}")
            return self.registry
        self._set(addresses=sorted({str(item[4][0]) for item in found}))
        try:
            socket.create_connection((self.name, self.port), STEP_TIMEOUT).close()
        except OSError as error:
            self._set(connect=f"connect: {error.strerror or error}", by_proxy=self._through_proxy())
            return self.registry
        self._set(connect="ok")
        self._tls()
        if self.registry.speaks in ("tls", "http"):
            self._challenge()
        return self.registry

    def _through_proxy(self) -> str:
        """CONNECT by the caller's proxy (RFC 9110, 9.3.6): "ok", why not, or empty when there is none to try."""
        if not self.proxy:
            return ""
        host, _, port = self.proxy.rpartition("@")[2].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port) if port.isdigit() else 3128, timeout=STEP_TIMEOUT)
        connection.set_tunnel(self.name, self.port)
        try:
            connection.connect()
        except (OSError, http.client.HTTPException) as error:
            return str(error)
        finally:
            connection.close()
        return "ok"

    def _context(self, *, verify: bool) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return context
        context.load_default_certs()
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(self.certs)):
                if name.endswith(".crt"):
                    context.load_verify_locations(f"{self.certs}/{name}")
        return context

    def _tls(self) -> None:
        try:
            self._handshake(verify=True)
            self._set(speaks="tls", verify="ok")
        except ssl.SSLCertVerificationError as error:
            self._set(speaks="tls", verify=error.verify_message or str(error))
            with contextlib.suppress(OSError):
                self._handshake(verify=False)
        except (ssl.SSLError, OSError) as error:
            plain = getattr(error, "reason", "") in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")
            self._set(speaks="http" if plain else "other", verify="" if plain else str(error))

    def _handshake(self, *, verify: bool) -> None:
        with (
            socket.create_connection((self.name, self.port), STEP_TIMEOUT) as sock,
            self._context(verify=verify).wrap_socket(sock, server_hostname=self.name) as secure,
        ):
            self._set(chain=_chain(secure))

    def _connection(self, scheme: str, name: str, port: int) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(name, port, timeout=STEP_TIMEOUT)
        return http.client.HTTPSConnection(name, port, timeout=STEP_TIMEOUT, context=self._context(verify=False))

    def _get(self, url: str, accept: str = "*/*") -> tuple[int, dict[str, str], bytes]:
        """GET of an absolute URL, or of a path of the registry. Certificates were judged before; here content counts."""
        parts = urlsplit(url)
        scheme = parts.scheme or ("http" if self.registry.speaks == "http" else "https")
        port = parts.port or (self.port if not parts.hostname else 80 if scheme == "http" else 443)
        connection = self._connection(scheme, parts.hostname or self.name, port)
        headers = {"Accept": accept, "User-Agent": "dockyard-doctor"}
        if self.token and not parts.hostname:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""), headers=headers)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read(MAX_BODY)
        finally:
            connection.close()

    def _challenge(self) -> None:
        try:
            status, headers, _ = self._get("/v2/")
        except (OSError, http.client.HTTPException) as error:
            self._set(verify=self.registry.verify or str(error))
            return
        self._set(status=status, headers=headers, challenge=headers.get("www-authenticate", ""), date=_date(headers))
        if self.registry.challenge.lower().startswith("bearer"):
            self._fetch_token()
        if self.registry.repository:
            self._manifest()

    def _fetch_token(self) -> None:
        fields = dict(re.findall(r'(\w+)="([^"]*)"', self.registry.challenge))
        query = {"service": fields.get("service", "")}
        if self.registry.repository:
            query["scope"] = f"repository:{self.registry.repository}:{self.actions}"
        try:
            status, _, body = self._get(f"{fields.get('realm', '')}?{urlencode(query)}")
            document = json.loads(body) if status == 200 else {}
            self.token = str(document.get("token") or document.get("access_token") or "")
            self._set(realm_connect="ok" if status == 200 else f"HTTP {status}", token=claims(self.token), actions=self.actions)
        except (OSError, ValueError, http.client.HTTPException, AttributeError) as error:
            self._set(realm_connect=f"{type(error).__name__}: {error}")

    def _manifest(self) -> None:
        repository, reference = self.registry.repository, self.registry.reference
        try:
            status, headers, body = self._get(f"/v2/{repository}/manifests/{reference}", f"{_INDEX}, {_MANIFEST}")
            self._set(manifest_status=status, headers={**self.registry.headers, **headers})
            document = json.loads(body or b"{}")
            if status == 200:
                self._set(platforms=_platforms(document))
            else:
                errors = document.get("errors") or [{}]
                self._set(manifest_code=str(errors[0].get("code", "")))
            if status == 404:
                _, _, body = self._get(f"/v2/{repository}/tags/list")
                self._set(tags=list(json.loads(body).get("tags") or [])[:1000])
        except (OSError, ValueError, http.client.HTTPException, AttributeError, IndexError, TypeError):
            return


def claims(token: str) -> dict[str, Any]:
    """The payload of a JWT, unverified; empty if it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        value = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _platforms(document: dict[str, Any]) -> list[str]:
    found = [entry.get("platform") or {} for entry in document.get("manifests") or []]
    return [f"{p.get('os')}/{p.get('architecture')}" for p in found if p.get("os") != "unknown"]


def _date(headers: dict[str, str]) -> float:
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return 0.0


def _chain(secure: ssl.SSLSocket) -> list[Certificate]:
    """What the server sent, leaf first. The list beyond the leaf comes from a method that 3.11 keeps private."""
    from cryptography import x509

    getter = getattr(getattr(secure, "_sslobj", None), "get_unverified_chain", None)
    ders = [ssl.PEM_cert_to_DER_cert(item.public_bytes()) for item in getter() or []] if getter else []
    leaf = secure.getpeercert(binary_form=True)
    return [_certificate(x509.load_der_x509_certificate(der)) for der in ders or ([leaf] if leaf else [])]


def _certificate(certificate: Any) -> Certificate:
    from cryptography import x509

    def extension(kind: Any) -> Any:
        try:
            return certificate.extensions.get_extension_for_class(kind).value
        except (x509.ExtensionNotFound, ValueError):
            return None

    names = [str(name.value) for name in extension(x509.SubjectAlternativeName) or []]
    basic = extension(x509.BasicConstraints)
    return Certificate(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        names=names,
        self_signed=certificate.issuer == certificate.subject,
        ca=bool(basic and basic.ca),
    )
