"""TLS: the context that all listeners share, its certificate (given, saved by an administrator, or of our own making).

A context takes a new certificate while it serves: connections that come later see it.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
import ssl
from pathlib import Path

import msgspec

from dockyard.registry.errors import VALUE_INVALID

_DAYS = 825  # the longest that all clients accept


def self_made(data: Path, host: str) -> tuple[str, str]:
    """(certificate, key) below `data`, made at the first call. docker wants it as certs.d/HOST:PORT/ca.crt."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

    certificate, key = data / "tls.crt", data / "tls.key"
    if certificate.exists() and key.exists():
        return str(certificate), str(key)
    data.mkdir(parents=True, exist_ok=True)
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in dict.fromkeys(("localhost", socket.gethostname()))]
    names += [x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1")]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(list(dict.fromkeys(names))), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )  # fmt: skip
    fd = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    return str(certificate), str(key)


class Saved(msgspec.Struct, frozen=True):
    """The setting `tls`: PEM texts."""

    certificate: str
    key: str


def parse_saved(text: str) -> Saved:
    """Raises VALUE_INVALID unless the key fits the certificate."""
    try:
        saved = msgspec.json.decode(text.encode(), type=Saved)
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), saved)
    except (msgspec.DecodeError, RecursionError, ssl.SSLError, OSError, ValueError) as error:
        raise VALUE_INVALID(what="certificate", reason=f"a PEM chain and its unencrypted key are needed ({error})") from error
    return saved


def _load(context: ssl.SSLContext, saved: Saved) -> None:
    """OpenSSL reads files only: one that lives in memory, so that the key is written nowhere."""
    fd = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        os.write(fd, f"{saved.certificate.strip()}\n{saved.key.strip()}\n".encode())
        os.lseek(fd, 0, os.SEEK_SET)
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=lambda: b"")
    finally:
        os.close(fd)


class Tls:
    """Off until `begin`."""

    def __init__(self) -> None:
        self.context: ssl.SSLContext | None = None
        self._certificate = b""
        self._saved = ""

    def begin(self, certificate: str, key: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key or None)
        self.context, self._certificate = context, Path(certificate).read_bytes()
        return context

    def use(self, setting: str) -> None:
        """What an administrator saved; "" leaves what is used."""
        if self.context is None or not setting or setting == self._saved:
            return
        saved = parse_saved(setting)
        _load(self.context, saved)
        self._saved, self._certificate = setting, saved.certificate.encode()

    def describe(self) -> dict[str, str]:
        """Of the certificate in use; {} without TLS."""
        from cryptography import x509

        if self.context is None:
            return {}
        found = x509.load_pem_x509_certificate(self._certificate)
        names: list[str] = []
        with contextlib.suppress(x509.ExtensionNotFound):
            names = [str(n.value) for n in found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
        return {
            "Names": ", ".join(names) or found.subject.rfc4514_string(), "Issuer": found.issuer.rfc4514_string(),
            "Valid until": found.not_valid_after.strftime("%Y-%m-%d %H:%M UTC"),
        }  # fmt: skip
