"""Where the daemon is: variables, contexts, TLS material and their order."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from dockyard.client import DEFAULT_HOST, Tls, parse_host, resolve
from dockyard.errors import InvalidParameter, NotFound


def _context(config: Path, name: str, host: str) -> Path:
    digest = sha256(name.encode()).hexdigest()
    meta = config / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))
    return config / "contexts" / "tls" / digest / "docker"


@pytest.mark.parametrize(
    ("host", "scheme", "place"),
    [
        ("unix:///run/x.sock", "unix", ("/run/x.sock", "", 0)),
        ("tcp://10.0.0.1:99", "tcp", ("", "10.0.0.1", 99)),
        ("tcp://box", "tcp", ("", "box", 2375)),
        ("https://box", "tcp", ("", "box", 2376)),
        ("tcp://[::1]:2375", "tcp", ("", "::1", 2375)),
        ("tcp://[::1]", "tcp", ("", "::1", 2375)),
    ],
)
def test_hosts(host: str, scheme: str, place: tuple[str, str, int]) -> None:
    endpoint = parse_host(host)
    assert (endpoint.scheme, (endpoint.path, endpoint.hostname, endpoint.port)) == (scheme, place)


@pytest.mark.parametrize("host", ["/var/run/docker.sock", "unix://", "ssh://box", "tcp://box:http", "tcp://box:0"])
def test_bad_hosts_are_refused(host: str) -> None:
    with pytest.raises(InvalidParameter, match="unable to parse docker host"):
        parse_host(host)


def test_order_of_sources(tmp_path: Path) -> None:
    _context(tmp_path, "prod", "tcp://prod:1")
    _context(tmp_path, "test", "tcp://test:1")
    env = {"DOCKER_CONFIG": str(tmp_path)}
    assert resolve(env).host == DEFAULT_HOST
    (tmp_path / "config.json").write_text('{"currentContext": "prod"}')
    assert resolve(env).host == "tcp://prod:1"
    env["DOCKER_CONTEXT"] = "test"
    assert resolve(env).host == "tcp://test:1"
    env["DOCKER_HOST"] = "tcp://env:1"
    assert resolve(env).host == "tcp://env:1"
    assert resolve(env, context="prod").host == "tcp://prod:1"
    assert resolve(env, host="tcp://flag:1").source == "--host"


def test_tls_variables_and_context_material(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem"):
        (tmp_path / name).write_text("")
    env = {"DOCKER_HOST": "tcp://box", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    endpoint = resolve(env)
    assert endpoint.port == 2376
    assert endpoint.tls == Tls(str(tmp_path / "ca.pem"), str(tmp_path / "cert.pem"), "", verify=True)
    directory = _context(tmp_path, "safe", "tcp://safe:1")
    directory.mkdir(parents=True)
    (directory / "ca.pem").write_text("")
    tls = resolve({"DOCKER_CONFIG": str(tmp_path)}, context="safe").tls
    assert tls is not None
    assert tls.ca == str(directory / "ca.pem")


def test_unknown_context_and_broken_config(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="context not found"):
        resolve({"DOCKER_CONFIG": str(tmp_path)}, context="nope")
    (tmp_path / "config.json").write_text("{oops")
    assert resolve({"DOCKER_CONFIG": str(tmp_path)}).host == DEFAULT_HOST


def test_the_own_engine_is_taken_where_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dockyard.client import Client, endpoint

    monkeypatch.setattr(endpoint, "OWN_SOCKET", f"unix://{tmp_path}/own.sock")
    env = {"DOCKER_CONFIG": str(tmp_path)}
    assert Client.from_env(env).endpoint.host == DEFAULT_HOST
    (tmp_path / "own.sock").touch()
    assert Client.from_env(env).endpoint.host == f"unix://{tmp_path}/own.sock"
    assert Client.from_env({**env, "DOCKER_HOST": "unix:///x"}).endpoint.host == "unix:///x"
    assert Client.from_env(env, host="unix:///y").endpoint.host == "unix:///y"
