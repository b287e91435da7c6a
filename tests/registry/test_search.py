"""Search: in which order, of what one may see, whatever is typed; on both databases, and after an old schema."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dockyard.registry.access import ANONYMOUS, Caller
from dockyard.registry.database import open_database
from dockyard.registry.schema import statements
from dockyard.registry.search import find
from dockyard.testing.backends import postgres
from dockyard.testing.registry_server import PASSWORD, Client, basic, served

NAMES = {
    "web": ("", True), "acme/web": ("the shop front", True), "acme/web-admin": ("", True), "acme/front-web": ("", True),
    "acme/cobweb": ("", True), "acme/hidden-web": ("", False), "acme/mail": ("sends Web mail", True),
    "acme/api_v2": ("100% organic", True), "acme/zebra": ("", True), "bob/web": ("", False),
}  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def alice(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgres()) if request.param == "postgresql" else ""
        it = stack.enter_context(served(tmp_path_factory.mktemp("registry"), database=url))
        it.run(it.registry.accounts.create("alice", password=PASSWORD, admin=True))
        client = it.client("alice", PASSWORD)
        client.api("POST", "accounts", name="bob", password=PASSWORD)
        client.api("POST", "accounts", name="acme", kind="org")
        for name, (description, public) in NAMES.items():
            client.api("POST", "repositories", name=name, public=public)
            client.api("PATCH", f"repositories/{name}", description=description)
        yield client


def search(client: Client, text: str, **more: Any) -> list[str]:
    answer = client.http.request("GET", client.base + "/v1/search", fields={"q": text, **more},
                                 headers={"Authorization": client.authorization} if client.authorization else {})  # fmt: skip
    assert answer.status == 200, answer.data
    return [row["name"] for row in json.loads(answer.data)["results"]]


def test_the_best_comes_first(alice: Client) -> None:
    found = search(alice, "web")
    assert found[0] == "web"
    assert set(found) == {name for name in NAMES if "web" in name} | {"acme/mail"}
    assert search(alice, "acme/web")[:2] == ["acme/web", "acme/web-admin"]
    assert search(alice, "library/web")[0] == "web"
    assert search(alice, "WEB") == found, "whoever types capitals"


@pytest.mark.parametrize(("text", "held"), [("cobw", "acme/cobweb"), ("obwe", "acme/cobweb"), ("z", "acme/zebra"),
                                             ("shop", "acme/web"), ("api_v2", "acme/api_v2"), ("100%", "acme/api_v2"),
                                             ("organ", "acme/api_v2"), ("adm", "acme/web-admin")])  # fmt: skip
def test_what_begins_or_holds(alice: Client, text: str, held: str) -> None:
    assert held in search(alice, text)


@pytest.mark.parametrize("text", ["nothing", "w_b", "1000", "%%", "___"])
def test_marks_of_patterns_are_letters(alice: Client, text: str) -> None:
    assert search(alice, text) == []


def test_private_ones_are_for_those_who_may(alice: Client) -> None:
    everybody = Client(alice.port)
    assert "acme/hidden-web" not in search(everybody, "web")
    assert "bob/web" not in search(everybody, "web")
    bob = Client(alice.port, basic("bob", PASSWORD))
    assert "bob/web" in search(bob, "web")
    assert "acme/hidden-web" not in search(bob, "web")


def test_counts(alice: Client) -> None:
    assert len(search(alice, "web", n="2")) == 2
    assert len(search(alice, "", n="100")) == len(NAMES)
    assert len(search(alice, "web", n="0")) == 1
    assert len(search(alice, "web", n="junk")) > 2


def test_a_change_is_found_and_a_loss_is_not(alice: Client) -> None:
    alice.api("POST", "repositories", name="acme/fleeting")
    alice.api("PATCH", "repositories/acme/fleeting", description="quicksilver")
    assert search(alice, "quicksilv") == ["acme/fleeting"]
    alice.api("PATCH", "repositories/acme/fleeting", description="lead")
    assert search(alice, "quicksilv") == []
    alice.api("DELETE", "repositories/acme/fleeting")
    assert search(alice, "fleeting") == []


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.text(max_size=30) | st.sampled_from(['"', "a\"b", "*", "AND OR NOT", "a*b", "^x", "(", "NEAR(a b)", "-x", "a:b", "\x00",
                                                "\ud7ff", "\U0010ffff", "a\ud7ff", "{name}", "'; DROP TABLE x"]))  # fmt: skip
def test_whatever_is_typed(alice: Client, text: str) -> None:
    assert isinstance(search(alice, text), list)


async def test_an_old_database_is_searched_too(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as old, old:
        for statement in statements("sqlite", 0):
            old.execute(statement)
        old.execute("PRAGMA user_version = 1")
        old.execute("INSERT INTO repositories (name, namespace, public, created, updated) VALUES ('acme/ancient', 'acme', 1, 0, 0)")
    db = open_database(str(tmp_path / "old.db"))
    try:
        assert [row[0] for row in await db.search(lambda tx: find(tx, ANONYMOUS, "ncien", 5))] == ["acme/ancient"]
        assert await db.search(lambda tx: find(tx, Caller("x", 1), "ancient", 5, "bob")) == []
    finally:
        await db.close()
