"""Where the daemon is: DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH and docker contexts, resolved as docker does.

Order (docker/cli, cli/command/cli.go ``resolveContextName``): an explicit host; an explicit context; DOCKER_HOST;
DOCKER_CONTEXT; ``currentContext`` of config.json; the built-in default. A context is a directory named by the SHA-256
of its name below ``contexts/meta`` (address) and ``contexts/tls`` (ca.pem, cert.pem, key.pem).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from dockyard.client.errors import BAD_HOST, NO_CONTEXT

DEFAULT_HOST = "unix:///var/run/docker.sock"
OWN_SOCKET = "unix:///run/dockyard/dockyard.sock"
"""Where ``dockyard engine`` serves unless told otherwise."""
DEFAULT_CONTEXT = "default"
_PORT = {False: 2375, True: 2376}


class Tls(NamedTuple):
    """PEM files; an empty name means not given. ``verify`` off still encrypts."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: bool = True


class Endpoint(NamedTuple):
    """One daemon address. ``scheme`` is "unix" (``path`` set) or "tcp" (``hostname``, ``port`` set)."""

    host: str
    scheme: str
    path: str = ""
    hostname: str = ""
    port: int = 0
    prefix: str = ""
    tls: Tls | None = None
    source: str = "default"

    def __str__(self) -> str:
        return self.host


def parse_host(host: str, tls: Tls | None = None, *, source: str = "given") -> Endpoint:
    """Parse ``unix:///path``, ``tcp://name[:port][/prefix]``, ``http://`` or ``https://``. Raises BAD_HOST."""
    scheme, mark, rest = host.partition("://")
    if not mark:
        raise BAD_HOST(host=host, cause="it has no scheme such as unix:// or tcp://")
    if scheme == "unix":
        if not rest:
            raise BAD_HOST(host=host, cause="the path of the socket is empty")
        return Endpoint(host, "unix", path=rest, source=source)
    if scheme not in ("tcp", "http", "https"):
        raise BAD_HOST(host=host, cause=f"scheme {scheme} is not supported (unix, tcp, http, https are)")
    if scheme == "https" and tls is None:
        tls = Tls()
    authority, _, prefix = rest.partition("/")
    name, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        name, port = authority, str(_PORT[tls is not None])
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise BAD_HOST(host=host, cause=f"port {port!r} is not a number from 1 to 65535")
    name = name.strip("[]") or "localhost"
    return Endpoint(host, "tcp", hostname=name, port=int(port), prefix=prefix.rstrip("/"), tls=tls, source=source)


def resolve(
    environ: Mapping[str, str] | None = None, *, host: str = "", context: str = "", default: str = DEFAULT_HOST,
    tls: Tls | None = None,
) -> Endpoint:  # fmt: skip
    """The endpoint that these variables and files name; ``tls`` stands in for the TLS variables. Raises BAD_HOST,
    NO_CONTEXT."""
    env = os.environ if environ is None else environ
    if host:
        return parse_host(host, tls or _env_tls(env), source="--host")
    if not context and env.get("DOCKER_HOST"):
        return parse_host(env["DOCKER_HOST"], tls or _env_tls(env), source="DOCKER_HOST")
    config = config_dir(env)
    name, source = context, "--context"
    if not name:
        name, source = env.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT"
    if not name:
        name, source = str(read_config(config).get("currentContext", "")), "currentContext"
    if not name or name == DEFAULT_CONTEXT:
        return parse_host(default, source="default")
    return _from_context(config, name, f"context {name} ({source})")


def usual_host() -> str:
    """Where nothing names an engine: Dockyard's own where its socket is, else Docker's."""
    return OWN_SOCKET if os.path.exists(OWN_SOCKET.removeprefix("unix://")) else DEFAULT_HOST


def config_dir(env: Mapping[str, str]) -> str:
    """Directory of the CLI's configuration (DOCKER_CONFIG or ~/.docker)."""
    return env.get("DOCKER_CONFIG") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".docker")


def read_config(directory: str) -> dict[str, Any]:
    """config.json of the CLI as a dictionary; an absent or broken file reads as empty, as docker warns and goes on."""
    return _read_object(os.path.join(directory, "config.json")) or {}


def _read_object(path: str) -> dict[str, Any] | None:
    import json

    try:
        with open(path, "rb") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _env_tls(env: Mapping[str, str]) -> Tls | None:
    """As docker: DOCKER_TLS_VERIFY (any non-empty value) or DOCKER_TLS switches TLS on for tcp."""
    verify, plain = bool(env.get("DOCKER_TLS_VERIFY")), bool(env.get("DOCKER_TLS"))
    if not verify and not plain:
        return None
    directory = env.get("DOCKER_CERT_PATH") or config_dir(env)
    return _tls_of(directory, verify=verify)


def _tls_of(directory: str, *, verify: bool) -> Tls:
    def existing(name: str) -> str:
        path = os.path.join(directory, name)
        return path if os.path.exists(path) else ""

    return Tls(existing("ca.pem"), existing("cert.pem"), existing("key.pem"), verify)


def _from_context(config: str, name: str, source: str) -> Endpoint:
    from hashlib import sha256

    digest = sha256(name.encode()).hexdigest()
    meta = _read_object(os.path.join(config, "contexts", "meta", digest, "meta.json"))
    try:
        docker = (meta or {})["Endpoints"]["docker"]
        address, skip = str(docker["Host"]), bool(docker.get("SkipTLSVerify"))
    except (KeyError, TypeError, AttributeError):
        raise NO_CONTEXT(name=name) from None
    directory = os.path.join(config, "contexts", "tls", digest, "docker")
    tls = _tls_of(directory, verify=not skip) if os.path.isdir(directory) else None
    return parse_host(address, tls, source=source)
