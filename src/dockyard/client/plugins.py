"""Docker's plugins (v1): finding them and calling them (moby pkg/plugins, docs.docker.com/engine/extend/plugin_api).

A plugin is a program that answers HTTP POSTs with JSON. It is found by its name, in this order::

    /run/docker/plugins/NAME.sock, /run/docker/plugins/NAME/NAME.sock
    /etc/docker/plugins, /usr/lib/docker/plugins:  NAME.spec (an address) or NAME.json {"Name", "Addr", "TLSConfig"},
                                                   there or in a folder NAME

Synchronous; callers on a loop use a thread. Invariants: a call has one bound in all (``CALL_TIMEOUT``), an answer one
in bytes; what a plugin says is data, never a path or a command.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockyard.client.endpoint import Endpoint, Tls, parse_host
from dockyard.client.errors import CANNOT_CONNECT, NO_PLUGIN, PLUGIN_FAILED
from dockyard.client.wire import Wire, connect
from dockyard.errors import DockyardError, System

CALL_TIMEOUT = 30.0
CONNECT_PATIENCE = 5.0
"""Seconds that a plugin which is just starting has until it accepts connections."""
MAX_ANSWER = 1 << 20
MIME = "application/vnd.docker.plugins.v1.2+json"
SOCKET_DIRS = (Path("/run/docker/plugins"),)
SPEC_DIRS = (Path("/etc/docker/plugins"), Path("/usr/lib/docker/plugins"))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}\Z")

Json = dict[str, Any]


class Unimplemented(Exception):
    """The plugin does not know this method (404)."""


@dataclass(frozen=True, slots=True)
class Plugin:
    name: str
    endpoint: Endpoint

    def implements(self) -> Sequence[str]:
        """What it is: NetworkDriver, IpamDriver, VolumeDriver, authz."""
        kinds = self.call("Plugin.Activate").get("Implements")
        return [str(kind) for kind in kinds] if isinstance(kinds, list) else []

    def call(self, method: str, request: Mapping[str, Any] | None = None) -> Json:
        """The answer's object. Raises Unimplemented, and System with the plugin's own sentence (Err or Error)."""
        body = json.dumps(request or {}).encode()
        wire = self._open(method)
        try:
            wire.send(_head(method, self.endpoint, len(body)) + body)
            head = wire.read_head()
            answer = self._body(wire, method, head)
        except DockyardError as error:
            raise PLUGIN_FAILED(plugin=self.name, method=method, cause=error.message) from None
        finally:
            wire.close()
        if head.status == 404:
            raise Unimplemented(f"{self.name}: {method}")
        told = answer.get("Err") or answer.get("Error")
        if head.status != 200 or told:
            raise PLUGIN_FAILED(plugin=self.name, method=method, cause=told or f"HTTP status {head.status}")
        return answer

    def _open(self, method: str) -> Wire:
        end, pause = time.monotonic() + CONNECT_PATIENCE, 0.05
        while True:
            try:
                return connect(self.endpoint, CALL_TIMEOUT)
            except DockyardError as error:
                if error.code != CANNOT_CONNECT.id or time.monotonic() + pause > end:
                    raise PLUGIN_FAILED(plugin=self.name, method=method, cause=error.message) from None
            time.sleep(pause)
            pause *= 2

    def _body(self, wire: Wire, method: str, head: Any) -> Json:
        data = b""
        for piece in wire.body(head):
            data += piece
            if len(data) > MAX_ANSWER:
                raise PLUGIN_FAILED(plugin=self.name, method=method, cause=f"its answer is over {MAX_ANSWER} bytes")
        try:
            answer = json.loads(data) if data.strip() else {}
        except ValueError:
            answer = {"Err": data[:200].decode(errors="replace").strip()} if head.status != 200 else None
        if not isinstance(answer, dict):
            raise PLUGIN_FAILED(plugin=self.name, method=method, cause="its answer is not a JSON object")
        return answer


def _head(method: str, endpoint: Endpoint, length: int) -> bytes:
    host = endpoint.hostname or "plugin"
    return (
        f"POST {endpoint.prefix}/{method} HTTP/1.1\r\nHost: {host}\r\nAccept: {MIME}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode()


@dataclass(frozen=True, slots=True)
class PluginDirs:
    sockets: tuple[Path, ...] = SOCKET_DIRS
    specs: tuple[Path, ...] = SPEC_DIRS


def find(name: str, dirs: PluginDirs | None = None) -> Plugin:
    """Raises NotFound for a name that no plugin has, System for a specification that cannot be read."""
    places = dirs or PluginDirs()
    if not _NAME.match(name):
        raise NO_PLUGIN(name=name)
    for base in places.sockets:
        for path in (base / f"{name}.sock", base / name / f"{name}.sock"):
            if path.is_socket():
                return Plugin(name, parse_host(f"unix://{path}"))
    for base in places.specs:
        for path in (base / f"{name}.spec", base / name / f"{name}.spec"):
            if path.is_file():
                return Plugin(name, _address(name, path.read_text().strip(), None))
        for path in (base / f"{name}.json", base / name / f"{name}.json"):
            if path.is_file():
                return Plugin(name, _from_json(name, path))
    raise NO_PLUGIN(name=name)


def _from_json(name: str, path: Path) -> Endpoint:
    try:
        tree = json.loads(path.read_text())
        tls = tree.get("TLSConfig")
        pems = None
        if tls:
            verify = not tls.get("InsecureSkipVerify")
            pems = Tls(tls.get("CAFile", ""), tls.get("CertFile", ""), tls.get("KeyFile", ""), verify)
        return _address(name, str(tree["Addr"]), pems)
    except (ValueError, KeyError, AttributeError) as error:
        raise PLUGIN_FAILED(plugin=name, method="discovery", cause=f"cannot read {path}: {error}") from None


def _address(name: str, text: str, tls: Tls | None) -> Endpoint:
    try:
        return parse_host(text, tls)
    except DockyardError as error:
        raise System(f"plugin {name}: {error.message}") from None
