"""dockerd's flags and daemon.json, read into Settings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dockyard.api.daemon import engine_settings
from dockyard.api.settings import OPTIONS, Settings, flags_of, load, normal_host, notes
from dockyard.errors import InvalidParameter


def test_nothing_given_is_the_default() -> None:
    assert load({}) == Settings()
    assert load({}, b"  \n") == Settings()


def test_a_file_as_puppet_writes_it() -> None:
    text = msgspec.json.encode(
        {
            "hosts": ["unix:///var/run/docker.sock", "tcp://0.0.0.0:2376"], "tlsverify": True, "tlscacert": "/ca.pem",
            "tlscert": "/cert.pem", "tlskey": "/key.pem", "log-driver": "json-file", "log-opts": {"max-size": "50m"},
            "default-address-pools": [{"base": "10.200.0.0/16", "size": 24}], "registry-mirrors": ["https://m.example"],
            "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}}, "live-restore": True,
            "features": {"buildkit": True}, "storage-driver": "overlay2", "dns": ["10.0.0.53"], "labels": ["a=b"],
        }
    )  # fmt: skip
    settings = load({}, text)
    assert settings.tlsverify
    assert settings.tls_wanted
    assert settings.hosts[1] == "tcp://0.0.0.0:2376"
    assert settings.default_address_pools == ({"Base": "10.200.0.0/16", "Size": 24},)
    assert notes(settings) == []


def test_unknown_keys_are_named_and_retired_ones_explained() -> None:
    with pytest.raises(InvalidParameter, match="don't match any configuration option: grpah"):
        load({}, b'{"grpah": "/x"}')
    with pytest.raises(InvalidParameter, match="graph is retired, use data-root"):
        load({}, b'{"graph": "/x"}')


def test_flag_and_file_at_once_is_an_error_with_both_values() -> None:
    told = r"both as a flag and in the configuration file: mtu: \(from flag: 1400, from file: 1500\)"
    with pytest.raises(InvalidParameter, match=told):
        load({"mtu": "1400"}, b'{"mtu": 1500}')


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"{", "invalid JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"mtu": "1500"}', "mtu must be a int, not str"),
        (b'{"mtu": true}', "mtu must be a int"),
        (b'{"bridge": "br9", "bip": "10.0.0.1/24"}', "mutually exclusive"),
        (b'{"iptables": false, "icc": false}', "ICC=false uses iptables"),
        (b'{"log-level": "loud"}', "invalid logging level: loud"),
        (b'{"tlsverify": true}', "needs tlscacert"),
        (b'{"hosts": ["udp://1.2.3.4:5"]}', "unsupported proto udp"),
        (b'{"labels": ["nothing"]}', "a label is key=value"),
        (b'{"bip": "10.0.0/8/9"}', "is not an address"),
        (b'{"default-address-pools": [{"base": "10.0.0.0/16", "size": 8}]}', "does not fit"),
        (b'{"default-runtime": "kata"}', "'kata' does not exist"),
    ],
)
def test_what_cannot_be_is_refused(text: bytes, told: str) -> None:
    with pytest.raises(InvalidParameter, match=told):
        load({}, text)


def test_flags_are_gathered_and_typed() -> None:
    words: list[tuple[str, Any]] = [
        ("hosts", "tcp://:2375"), ("hosts", "/run/d.sock"), ("log_opts", "max-size=1m"), ("log_opts", "max-file=2"),
        ("default_ulimits", "nofile=10:20"), ("runtimes", "kata=/usr/bin/kata"), ("iptables", False), ("mtu", "9000"),
    ]  # fmt: skip
    settings = load(flags_of(words))
    assert settings.hosts == ("tcp://localhost:2375", "unix:///run/d.sock")
    assert settings.log_opts == {"max-size": "1m", "max-file": "2"}
    assert settings.default_ulimits == {"nofile": {"Soft": 10, "Hard": 20}}
    assert settings.runtimes == {"kata": {"path": "/usr/bin/kata"}}
    assert (settings.iptables, settings.mtu) == (False, 9000)


@pytest.mark.parametrize(
    ("given", "whole"),
    [("", "unix:///var/run/docker.sock"), ("tcp://", "tcp://localhost:2376"), (":99", "tcp://localhost:99"),
     ("tcp://[::1]:5", "tcp://[::1]:5"), ("tcp://[::1]", "tcp://[::1]:2376"), ("fd://", "fd://")],
)  # fmt: skip
def test_short_addresses(given: str, whole: str) -> None:
    assert normal_host(given, tls=True) == whole


def test_what_has_no_effect_is_said() -> None:
    assert "containerd is accepted without effect" in notes(load({"containerd": "/run/c.sock"}))[0]


def test_every_option_has_a_help_text_and_a_flag_of_its_own() -> None:
    flags = [option.flag for option in OPTIONS if option.flag]
    assert len(flags) == len(set(flags))
    assert all(option.help for option in OPTIONS)


def test_the_builders_settings() -> None:
    default = engine_settings(Settings()).build
    assert (default.max_cache, default.allowed) == (0, {"network.host"})
    builder = {"gc": {"defaultKeepStorage": "20GB"}, "entitlements": {"network-host": False, "security-insecure": True}}
    given = engine_settings(Settings(builder=builder)).build
    assert (given.max_cache, given.allowed) == (20 << 30, {"security.insecure"})
    assert engine_settings(Settings(builder={"gc": {"enabled": False}})).build.max_cache == -1


def test_every_setting_is_used_or_says_that_it_is_not() -> None:
    """A key that is read and then forgotten pretends; one in ``check`` alone is refused, and that is honest, too."""
    import ast
    import inspect

    from dockyard.api import daemon, settings

    trees = [ast.parse(inspect.getsource(module)) for module in (daemon, settings)]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in {"settings", "s"}}
    forgotten = {option.name for option in OPTIONS if option.name not in read and not option.note} - {"features"}
    assert forgotten == set(), "give each a use in daemon.py, a refusal in check(), or a note"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'{"exec-opts": ["native.cgroupdriver=other"]}', "invalid cgroup driver other"),
        (b'{"exec-opts": ["nonsense=1"]}', "invalid option nonsense"),
        (b'{"min-api-version": "1.99"}', "invalid minimum API version 1.99"),
        (b'{"min-api-version": "latest"}', "invalid minimum API version latest"),
        (b'{"runtimes": {"mine": {}}}', "runtime mine: either"),
        (b'{"default-runtime": "mine"}', "does not exist"),
    ],
)
def test_what_would_be_dangerous_to_ignore_is_refused(text: bytes, told: str) -> None:
    with pytest.raises(InvalidParameter, match=told):
        load({}, text)


def test_kubernetes_guides_cgroup_driver_is_accepted_and_noted() -> None:
    assert "native.cgroupdriver=systemd is accepted without effect" in notes(load({}, b'{"exec-opts": ["native.cgroupdriver=systemd"]}'))[0]
