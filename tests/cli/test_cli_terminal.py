"""On a terminal: keys, Ctrl-C, detaching, signals, colour, and the terminal as it was afterwards."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dockyard.client import Client

spec = importlib.util.spec_from_file_location("pty_runner", Path(__file__).with_name("pty_runner.py"))
assert spec is not None
assert spec.loader is not None
pty_runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pty_runner)
DETACH = "\x10\x11"
Type = Callable[..., Any]


@pytest.fixture
def on_terminal(environ: dict[str, str]) -> Type:
    def start(*words: str, **size: int) -> Any:
        return pty_runner.OnTerminal([sys.executable, "-m", "dockyard.cli", *words], environ, **size)

    return start


@pytest.fixture
def echo(client: Client) -> Iterator[str]:
    """A running ``cat`` with a terminal."""
    for _ in client.objects("POST", "/images/create", {"fromImage": "busybox", "tag": "latest"}):
        pass
    wish = {"Image": "busybox", "Cmd": ["cat"], "Tty": True, "OpenStdin": True}
    made = client.request("POST", "/containers/create", None, wish)["Id"]
    client.request("POST", f"/containers/{made}/start")
    yield made
    client.request("DELETE", f"/containers/{made}", {"force": True})


def _running(client: Client, container: str) -> bool:
    return bool(client.request("GET", f"/containers/{container}/json")["State"]["Running"])


def test_what_is_typed_comes_back_and_keys_detach(on_terminal: Type, client: Client) -> None:
    with on_terminal("run", "-it", "--name", "typed", "busybox", "cat") as it:
        it.until_raw()
        it.type("hello\n")
        it.expect("hello")
        it.type(DETACH)
        assert it.ended() == 0
        assert not it.raw()
    assert _running(client, "typed")
    client.request("DELETE", "/containers/typed", {"force": True})


def test_attach_detaches_with_docker_s_sentence(on_terminal: Type, client: Client, echo: str) -> None:
    with on_terminal("attach", echo) as it:
        it.until_raw()
        it.type("hello\n")
        it.expect("hello")
        it.type("\x10")  # half of the keys is held back, then goes on with what follows
        it.type("more\n")
        it.expect("more")
        it.type(DETACH)
        it.expect("read escape sequence")
        assert it.ended() == 1
    assert _running(client, echo)


def test_other_detach_keys(on_terminal: Type, client: Client, echo: str) -> None:
    with on_terminal("attach", "--detach-keys", "ctrl-x,d", echo) as it:
        it.until_raw()
        it.type(DETACH)
        it.type("here\n")
        it.expect("here")
        it.type("\x18d")
        it.expect("read escape sequence")
        assert it.ended() == 1
    assert _running(client, echo)


def test_keys_typed_before_the_terminal_is_raw_are_kept(on_terminal: Type, echo: str) -> None:
    with on_terminal("attach", echo) as it:
        it.type("early\n")
        it.until_raw()
        it.expect("early")
        it.type("later\n")
        it.expect("later")
        it.type(DETACH)
        assert it.ended() == 1
    assert it.output.count(b"early") >= 2, "once by the terminal, once by cat"


def test_ctrl_c_without_a_tty_goes_to_the_container(on_terminal: Type, client: Client) -> None:
    with on_terminal("run", "--name", "stopped", "busybox", "sleep", "3600") as it:
        pty_wait(client, "stopped")
        it.type("\x03")
        assert it.ended() == 130
    assert client.request("GET", "/containers/stopped/json")["State"]["ExitCode"] == 130
    client.request("DELETE", "/containers/stopped")


def test_ctrl_c_without_the_signal_proxy_ends_the_client_alone(on_terminal: Type, client: Client) -> None:
    with on_terminal("run", "--sig-proxy=false", "--name", "left", "busybox", "sleep", "3600") as it:
        pty_wait(client, "left")
        it.type("\x03")
        assert it.ended() == 130
    assert _running(client, "left")
    client.request("DELETE", "/containers/left", {"force": True})


def test_the_terminal_is_put_back_when_the_client_is_ended(on_terminal: Type, echo: str) -> None:
    with on_terminal("attach", echo) as it:
        it.until_raw()
        it.signal(signal.SIGTERM)
        assert it.ended() == 128 + signal.SIGTERM
        assert not it.raw()


def test_follow_ends_at_ctrl_c(on_terminal: Type, client: Client) -> None:
    wish = {"Image": "busybox", "Cmd": ["sh", "-c", "echo said; sleep 3600"]}
    client.request("POST", "/containers/create", {"name": "followed"}, wish)
    client.request("POST", "/containers/followed/start")
    with on_terminal("logs", "-f", "followed") as it:
        it.expect("said")
        it.type("\x03")
        assert it.ended() == 130
    assert b"Traceback" not in it.output
    client.request("DELETE", "/containers/followed", {"force": True})


def test_colour_and_width_are_for_terminals(on_terminal: Type, cli: Callable[..., Any], echo: str) -> None:
    with on_terminal("ps", columns=80) as it:
        assert it.ended() == 0
    lines = it.output.decode().splitlines()
    assert lines[0].startswith("\x1b[1m")
    assert all(len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) <= 80 for line in lines)
    assert "\x1b" not in cli("ps").out


def test_pull_draws_on_a_terminal(on_terminal: Type) -> None:
    with on_terminal("pull", "drawn:1") as it:
        it.expect("Status: Downloaded newer image for drawn:1")
        it.expect("docker.io/library/drawn:1")
        assert it.ended() == 0


def pty_wait(client: Client, name: str) -> None:
    """Until the container runs."""
    import time

    from dockyard.errors import NotFound

    end = time.monotonic() + pty_runner.LIMIT
    while time.monotonic() < end:
        try:
            if _running(client, name):
                return
        except NotFound:
            pass
        time.sleep(0.02)
    raise AssertionError(f"{name} does not run")
