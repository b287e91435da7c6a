"""The engine itself: its socket, whether it answers, its process, configuration and proxies; and who is asking."""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dockyard.client import Client, Endpoint
from dockyard.doctor.collect.files import host_file
from dockyard.doctor.collect.parallel import each
from dockyard.doctor.facts import Caller, Engine
from dockyard.errors import DockyardError

REACH_TIMEOUT = 2.0
ENGINES = ("dockerd", "podman", "dockyard", "balena-engine", "containerd-dockerd")
DOCKYARD = ("dockyard", "dockyard.cli")
_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "ALL_PROXY")


def read_engine(client: Client) -> Engine:
    """Everything about the engine. Never raises for a dead or hostile one: `Engine.reach` says how it ended."""
    endpoint = client.endpoint
    reach, detail = reach_of(endpoint)
    answers, errors = _about(client) if reach == "ok" else ({}, {})
    version, info = answers.get("/version"), answers.get("/info")
    if errors:
        refused = next((text for text in errors.values() if _refused_api(text)), "")
        reach, detail = "version" if refused else reach, refused or "; ".join(errors.values())
    pid = peer_pid(endpoint) if reach not in ("absent", "refused", "denied") else 0
    pid = pid if _is_engine(pid) else _engine_by_socket(endpoint)
    command = _words(pid, "cmdline")
    config_path = _option(command, "--config-file") or "/etc/docker/daemon.json"
    return Engine(
        host=endpoint.host,
        source=endpoint.source,
        reach=reach,
        reach_detail=detail,
        socket=host_file(endpoint.path) if endpoint.scheme == "unix" else None,
        version=version if isinstance(version, dict) else {},
        info=info if isinstance(info, dict) else {},
        pid=pid,
        executable=_link(f"/proc/{pid}/exe") if pid else "",
        command=command,
        proxies={name: value for name, value in _environment(pid).items() if name in _VARIABLES},
        config_path=config_path,
        config_text=_text(f"/proc/{pid}/root{config_path}" if pid else config_path),
        others=[" ".join(_words(other, "cmdline")) for other in _engines() if pid and _beside(other, pid)],
        listens=[word for word in _hosts(command, config_path, pid) if word.startswith("tcp://")],
    )


def reach_of(endpoint: Endpoint) -> tuple[str, str]:
    """ok, absent, refused, denied, silent, tls or error, and the detail."""
    probe = Client(endpoint, timeout=REACH_TIMEOUT)
    try:
        probe.ping(timeout=REACH_TIMEOUT)
    except DockyardError as error:
        if endpoint.scheme == "tcp" and endpoint.tls is None and _wants_tls(endpoint):
            return "tls", "the server wants TLS and was asked in plain HTTP"
        return _reach_by_code(endpoint, error), str(error)
    finally:
        probe.close()
    return "ok", ""


def _wants_tls(endpoint: Endpoint) -> bool:
    """Does plain HTTP at that port get Go's refusal (a sentence, no JSON) or a TLS alert (15 03, RFC 8446 5.1), or nothing
    where a handshake gets an answer?"""
    try:
        with socket.create_connection((endpoint.hostname, endpoint.port), REACH_TIMEOUT) as sock:
            sock.settimeout(REACH_TIMEOUT)
            sock.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            answer = sock.recv(4096)
    except OSError:
        answer = b""
    return answer[:2] == b"\x15\x03" or b"HTTPS server" in answer or (not answer and _shakes_hands(endpoint))


def _shakes_hands(endpoint: Endpoint) -> bool:
    """Whose certificate it is does not matter here; an alert (a client certificate is wanted) is an answer too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((endpoint.hostname, endpoint.port), REACH_TIMEOUT) as sock:
            context.wrap_socket(sock).close()
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False
    return True


def _reach_by_code(endpoint: Endpoint, error: DockyardError) -> str:
    if error.code == "DY-CLIENT-002":
        return "denied"
    if error.code == "DY-CLIENT-004":
        return "silent"
    if error.code == "DY-CLIENT-007" or "TLS" in error.message or "HTTPS server" in error.message:
        return "tls"
    if error.code == "DY-CLIENT-001":
        return "absent" if endpoint.scheme == "unix" and not os.path.exists(endpoint.path) else "refused"
    return "error"


def _about(client: Client) -> tuple[dict[str, Any], dict[str, str]]:
    """/version and /info side by side: an engine that is slow with one of them still answers to the rest."""

    def ask(path: str) -> Any:
        try:
            return client.request("GET", path, timeout=REACH_TIMEOUT)
        except DockyardError as error:
            return error

    found, late = each(("/version", "/info"), ask, REACH_TIMEOUT)
    errors = {path: str(value) for path, value in found.items() if isinstance(value, DockyardError)}
    return {path: value for path, value in found.items() if path not in errors}, errors | late


def _refused_api(text: str) -> bool:
    return "is too old" in text.lower() or "is too new" in text.lower()


def peer_pid(endpoint: Endpoint) -> int:
    """Process that listens on a unix socket (SO_PEERCRED gives the one that called listen)."""
    if endpoint.scheme != "unix":
        return 0
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(REACH_TIMEOUT)
        try:
            sock.connect(endpoint.path)
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except OSError:
            return 0
    return int(struct.unpack("iII", raw)[0])


def _engines() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _is_engine(int(name))]


def _is_engine(pid: int) -> bool:
    if not pid:
        return False
    words = _words(pid, "cmdline")
    if not words:
        return False
    name = os.path.basename(words[0])
    if name in ENGINES:
        return True
    return name.startswith("python") and _is_dockyard(words[1:5])


def _is_dockyard(words: list[str]) -> bool:
    """``python [-m] dockyard[.cli] engine``: the script's path, or the module's name, then the verb."""
    places = [place for place, word in enumerate(words) if os.path.basename(word) in DOCKYARD]
    return bool(places) and any(word in ("engine", "daemon") for word in words[places[0] + 1 :])


def _beside(other: int, pid: int) -> bool:
    """Another engine on the same host: one that shares the network namespace."""
    return other != pid and _link(f"/proc/{other}/ns/net") == _link(f"/proc/{pid}/ns/net")


def _engine_by_socket(endpoint: Endpoint) -> int:
    """systemd opens the socket for dockerd (``-H fd://``): the engine is then the one process that looks like one."""
    candidates = _engines()
    named = [pid for pid in candidates if endpoint.path and endpoint.path in " ".join(_words(pid, "cmdline"))]
    if named:
        return named[0]
    by_fd = [pid for pid in candidates if "fd://" in " ".join(_words(pid, "cmdline"))]
    return by_fd[0] if len(by_fd) == 1 and endpoint.scheme == "unix" else 0


def _words(pid: int, name: str) -> list[str]:
    if not pid:
        return []
    try:
        data = Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return []
    return [word for word in data.decode("utf-8", "replace").split("\0") if word]


def _environment(pid: int) -> dict[str, str]:
    pairs = (word.partition("=") for word in _words(pid, "environ"))
    return {name: value for name, _, value in pairs}


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def _option(words: list[str], name: str) -> str:
    for index, word in enumerate(words):
        if word == name and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(name + "="):
            return word[len(name) + 1 :]
    return ""


def _hosts(words: list[str], config_path: str, pid: int) -> list[str]:
    """Addresses of the API by flags and daemon.json."""
    found = []
    for index, word in enumerate(words):
        if word in ("-H", "--host") and index + 1 < len(words):
            found.append(words[index + 1])
        elif word.startswith(("--host=", "-H=")):
            found.append(word.partition("=")[2])
    text = _text(f"/proc/{pid}/root{config_path}" if pid else config_path)
    try:
        hosts = json.loads(text or "{}").get("hosts", [])
    except (ValueError, AttributeError, RecursionError):  # the rules tell what is wrong with it
        hosts = []
    return found + [str(host) for host in hosts if isinstance(hosts, list)]


def probe_tls(listens: list[str]) -> dict[str, str]:
    """For each tcp address: "clear" when anybody gets an answer without TLS."""
    found = {}
    for address in listens:
        if ":" not in address.removeprefix("tcp://"):
            continue
        reach, _ = reach_of(_loopback(address))
        found[address] = "clear" if reach == "ok" else reach
    return found


def _loopback(address: str) -> Endpoint:
    from dockyard.client import parse_host

    endpoint = parse_host(address)
    if endpoint.hostname in ("0.0.0.0", "::", "localhost"):
        return parse_host(f"tcp://127.0.0.1:{endpoint.port}")
    return endpoint


def read_caller(environ: Mapping[str, str], endpoint: Endpoint) -> Caller:
    wanted = {name: value for name, value in environ.items() if name.startswith("DOCKER_") or name in _VARIABLES}
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
        by_file = [entry.gr_gid for entry in grp.getgrall() if name in entry.gr_mem]
    except KeyError:
        by_file = []
    return Caller(uid, os.getgroups(), by_file, wanted, endpoint.source, os.isatty(0))
