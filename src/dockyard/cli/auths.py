"""Credentials as docker's CLI keeps them: ``auths`` of config.json, or a helper (``docker-credential-NAME``).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from typing import Any

from dockyard.cli import configfile
from dockyard.client.endpoint import config_dir, read_config
from dockyard.errors import Code, DockyardError, System

Json = dict[str, Any]
HUB = "https://index.docker.io/v1/"
HELPER_LIMIT = 60.0
"""A helper may ask the desktop's keyring, which asks its owner."""
HELPER_FAILED = Code("DY-CLI-003", System, "cannot run docker-credential-{name} {verb}: {cause}")
_EMPTY = "credentials not found"


def server_of(domain: str) -> str:
    """The key of a registry in the configuration."""
    return HUB if domain in ("docker.io", "index.docker.io", "registry-1.docker.io", "") else domain


def header(domain: str) -> dict[str, str]:
    """``X-Registry-Auth`` for a request about images of ``domain`` (``docker.io``, ``host:port``)."""
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(credentials(server_of(domain))).encode()).decode()}


def header_for(image: str) -> dict[str, str]:
    """The same from the name of an image."""
    from dockyard.oci import parse_reference

    return header(parse_reference(image).domain)


def credentials(server: str) -> Json:
    """What AuthConfig holds for ``server``; empty when nothing is kept."""
    config = _config()
    if name := _helper(config, server):
        told = _ask(name, "get", server)
        if not told:
            return {}
        found = json.loads(told)
        secret = found.get("Secret", "")
        who = found.get("Username", "")
        kept = {"identitytoken": secret} if who == "<token>" else {"username": who, "password": secret}
        return kept | {"serveraddress": server}
    entry = config.get("auths", {}).get(server) or config.get("auths", {}).get(f"https://{server}")
    return decoded(entry, server) if isinstance(entry, dict) else {}


def all_credentials() -> Json:
    """AuthConfig by server, for ``X-Registry-Config``: whatever may be needed by a build. A helper that fails is left out:
    it may be for a registry that the build does not ask."""
    config = _config()
    servers = {*config.get("auths", {}), *config.get("credHelpers", {})}
    if name := config.get("credsStore"):
        with contextlib.suppress(DockyardError, ValueError):
            servers |= set(json.loads(_ask(str(name), "list", "") or "{}"))
    found = {}
    for server in sorted(servers):
        with contextlib.suppress(DockyardError, ValueError):
            if kept := credentials(server):
                found[server] = kept
    return found


def decoded(entry: Json, server: str) -> Json:
    """An entry of ``auths`` as AuthConfig. Pure."""
    found: Json = {"serveraddress": server}
    try:
        name, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except ValueError:
        name, password = "", ""
    if name:
        found |= {"username": name, "password": password.rstrip("\0")}
    if token := entry.get("identitytoken"):
        found["identitytoken"] = token
    return found if len(found) > 1 else {}


def store(server: str, user: str, password: str, token: str) -> str:
    """Keeps what a login gave; returns the file when the secret lies in it unencrypted, else ""."""
    config = configfile.to_change()
    if name := _helper(config, server):
        secret = {"ServerURL": server, "Username": "<token>" if token else user, "Secret": token or password}
        _ask(name, "store", json.dumps(secret))
        config.setdefault("auths", {})[server] = {}
        configfile.save(config)
        return ""
    entry = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    if token:
        entry = {"auth": base64.b64encode(f"{user}:".encode()).decode(), "identitytoken": token}
    config.setdefault("auths", {})[server] = entry
    return configfile.save(config)


def erase(server: str) -> bool:
    """False when there was nothing kept."""
    config = configfile.to_change()
    kept = config.get("auths", {})
    known = [key for key in (server, f"https://{server}") if key in kept]
    if name := _helper(config, server):
        _ask(name, "erase", server)
    for key in known:
        del kept[key]
    if known:
        configfile.save(config)
    return bool(known)


def _config() -> Json:
    return read_config(config_dir(os.environ))


def _helper(config: Json, server: str) -> str:
    return str(config.get("credHelpers", {}).get(server) or config.get("credsStore") or "")


def _ask(name: str, verb: str, told: str) -> str:
    """The helper's answer; "" for credentials that it does not have."""
    import subprocess

    if "/" in name:
        raise HELPER_FAILED(name=name, verb=verb, cause="its name has a slash")
    try:
        done = subprocess.run(
            [f"docker-credential-{name}", verb], input=told, capture_output=True, text=True, timeout=HELPER_LIMIT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HELPER_FAILED(name=name, verb=verb, cause=error) from None
    if done.returncode != 0:
        if _EMPTY in done.stdout + done.stderr:
            return ""
        raise HELPER_FAILED(name=name, verb=verb, cause=(done.stdout + done.stderr).strip())
    return done.stdout
