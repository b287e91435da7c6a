"""Stubs at work: a network of their own, a container for each, taken away at the end whatever happens."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

from dockyard.client import Client, quote
from dockyard.dockunit import stub as stubs
from dockyard.dockunit.engine import LABEL, exec_in, fetch
from dockyard.dockunit.errors import STUB_FAILED
from dockyard.dockunit.stub import Stub
from dockyard.errors import DockyardError, NotFound

READY_LIMIT = 60.0
PAUSE = 0.05


class Surroundings:
    """``network``: its name, for the containers that are to see the stubs."""

    def __init__(self, client: Client, network: str, running: dict[str, Stub]) -> None:
        self._client, self.network, self._running = client, network, running

    def unmet(self) -> list[str]:
        """What the tests should have asked the stubs and did not, and which stubs did not last."""
        found = []
        for container, one in self._running.items():
            state = self._client.request("GET", f"/containers/{container}/json")["State"]
            if not state.get("Running"):
                found.append(f"stub {one.name}: its container ended with {state.get('ExitCode')}")
                continue
            if any(answer.calls is not None for answer in one.answers):
                lines: list[str] = []
                exec_in(self._client, container, ["cat", stubs.CALLS], lines.append)
                found += stubs.unmet(one, "\n".join(lines))
        return found


@contextlib.contextmanager
def surroundings(
    client: Client, wanted: Sequence[Stub], headers: Callable[[str], dict[str, str]]
) -> Iterator[Surroundings | None]:
    """None where no stub is wanted. Raises System when one cannot be had."""
    if not wanted:
        yield None
        return
    network = f"dockunit-{secrets.token_hex(4)}"
    running: dict[str, Stub] = {}
    client.request("POST", "/networks/create", body={"Name": network, "Labels": {LABEL: "stubs"}})
    try:
        for one in wanted:
            _start(client, one, network, running, headers)
        for container, one in running.items():
            _await(client, container, one)
        yield Surroundings(client, network, running)
    finally:
        for container in running:
            with contextlib.suppress(DockyardError):
                client.request("DELETE", f"/containers/{container}", {"force": True, "v": True})
        with contextlib.suppress(DockyardError):
            client.request("DELETE", f"/networks/{quote(network)}")


def _start(
    client: Client, one: Stub, network: str, running: dict[str, Stub], headers: Callable[[str], dict[str, str]]
) -> None:
    body = {
        "Image": one.image or stubs.IMAGE, "Hostname": one.name, "Labels": {LABEL: f"stub {one.name}"}, "Env": list(one.env),
        "HostConfig": {"NetworkMode": network}, "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": [one.name]}}},
    }  # fmt: skip
    if not one.image:
        body["Cmd"] = stubs.command(one)
    elif one.command:
        body["Cmd"] = list(one.command)
    try:
        fetch(client, one.image or stubs.IMAGE, headers)
        made = str(client.request("POST", "/containers/create", body=body)["Id"])
        running[made] = one
        if not one.image:
            client.put_archive(made, "/", stubs.files(one))
        client.request("POST", f"/containers/{made}/start")
    except DockyardError as error:
        raise STUB_FAILED(name=one.name, cause=error) from None


def _await(client: Client, container: str, one: Stub) -> None:
    end = time.monotonic() + READY_LIMIT
    while True:
        try:
            state = client.request("GET", f"/containers/{container}/json")["State"]
        except NotFound:
            state = {}
        health = (state.get("Health") or {}).get("Status") or ""
        if not state.get("Running"):
            raise STUB_FAILED(name=one.name, cause=f"its container ended with {state.get('ExitCode')}")
        if one.image:
            if health in ("", "none", "healthy"):
                return
        elif exec_in(client, container, stubs.ready(one), lambda line: None) == 0:
            return
        if time.monotonic() > end:
            raise STUB_FAILED(name=one.name, cause=f"not ready after {READY_LIMIT:g} s")
        time.sleep(PAUSE)
