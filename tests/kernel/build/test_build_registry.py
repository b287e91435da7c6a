"""Base images from a registry that asks for a password: X-Registry-Config, progress, failures in the stream."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.testing.engines import PrivateEngine
from dockyard.testing.registries import PASSWORD, USER, debian_registry, free_port

from .conftest import BuildClient, Built, context, until_listening

pytestmark = pytest.mark.root


@pytest.fixture
def registry(engine: PrivateEngine, builder: BuildClient, tmp_path: Path) -> Iterator[str]:
    """host:port of a registry inside the engine's namespace that holds ``base:1``."""
    port = free_port()
    with debian_registry(tmp_path, htpasswd=True, port=port, inside=engine.inside) as host:
        until_listening(engine, port)
        builder.build("FROM busybox\nRUN echo from-the-registry > /r\n", t=f"{host}/base:1")
        auth = {"username": USER, "password": PASSWORD, "serveraddress": host}
        headers = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()}
        messages = list(builder.client.objects("POST", f"/images/{host}/base/push", {"tag": "1"}, headers=headers))
        assert not any("error" in m for m in messages), messages[-1]
        builder.client.request("DELETE", f"/images/{host}/base:1")
        builder.client.request("POST", "/build/prune", {"all": "1"})
        yield host


def _build(builder: BuildClient, text: str, auths: dict[str, dict[str, str]], **query: str) -> Built:
    headers = {
        "Content-Type": "application/x-tar",
        "X-Registry-Config": base64.urlsafe_b64encode(json.dumps(auths).encode()).decode(),
    }
    return Built(list(builder.client.objects("POST", "/build", query, context({"Dockerfile": text}), headers=headers)))


def test_from_is_pulled_with_the_clients_credentials(builder: BuildClient, registry: str) -> None:
    text = f"FROM {registry}/base:1\nRUN cat /r\n"
    refused = _build(builder, text, {})
    assert "from-the-registry" not in refused.text
    assert "no basic auth credentials" in refused.error or "authorization" in refused.error or "denied" in refused.error
    built = _build(builder, text, {registry: {"username": USER, "password": PASSWORD}})
    assert "from-the-registry" in built.text, built.error
    assert any(message.get("status") == "Pull complete" for message in built.messages), built.messages
    assert builder.inspect(f"{registry}/base:1")["RepoDigests"]
    again = _build(builder, text, {})
    assert again.image == built.image, "the base is here: nobody is asked"
    assert not any("status" in message for message in again.messages)
    assert _build(builder, text, {}, pull="1").error
    builder.client.request("DELETE", f"/images/{registry}/base:1", {"force": True})
