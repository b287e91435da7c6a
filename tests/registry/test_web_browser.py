"""The pages in a real headless Chromium: as one types, as others push, by keyboard, for a screen reader, on a phone.

With DOCKYARD_SCREENSHOTS=directory the pictures of docs/registry/ are made again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from dockyard.testing.browser import Browser, Tab, browser
from dockyard.testing.registry_server import INDEX, MANIFEST, PASSWORD, Client, Served, populate, served
from dockyard.web import pages

PATHS = {
    "repositories": "/", "tags": "/r/acme/web", "tag": "/r/acme/web/-/tags/1.4.1", "access": "/r/acme/web/-/access",
    "mirrors": "/r/acme/web/-/mirrors", "repository-settings": "/r/acme/web/-/settings", "namespace": "/n/acme",
    "members": "/n/acme/-/members", "webhooks": "/n/acme/-/webhooks", "retention": "/n/acme/-/retention",
    "tokens": "/n/alice/-/tokens", "account": "/n/alice/-/account", "storage": "/system",
    "accounts": "/system/accounts", "upstreams": "/system/upstreams", "settings": "/system/settings",
    "audit": "/system/audit", "missing": "/r/none/such",
}  # fmt: skip
SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"


def config(architecture: str) -> dict[str, Any]:
    return {
        "os": "linux", "architecture": architecture, "created": "2026-11-20T10:00:00Z",
        "config": {"Env": ["PATH=/usr/bin", "PORT=8080"], "Cmd": ["serve", "--port", "8080"], "WorkingDir": "/app",
                   "ExposedPorts": {"8080/tcp": {}}, "Labels": {"org.opencontainers.image.vendor": "Acme"}},
        "history": [{"created_by": "ADD rootfs.tar / # buildkit"}, {"created_by": "ENV PORT=8080", "empty_layer": True},
                    {"created_by": "RUN apt-get install -y nginx"}, {"created_by": "COPY app /app"}],
    }  # fmt: skip


def fill(alice: Client) -> None:
    children = []
    for architecture in ("amd64", "arm64"):
        layers = [os.urandom(size) for size in (900_000, 300_000, 40_000)]
        raw, digest = alice.image("acme/web", "", layers, config(architecture))
        children.append({"mediaType": MANIFEST, "digest": digest, "size": len(raw),
                         "platform": {"os": "linux", "architecture": architecture}})  # fmt: skip
    for tag in ("1.4.2", "latest"):
        alice.put_manifest("acme/web", tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}, INDEX)
    raw, digest = alice.image("acme/web", "1.4.1", [os.urandom(800_000), os.urandom(90_000)], config("amd64"))
    alice.manifest("acme/web", "", artifactType=SIGNATURE, subject={"mediaType": MANIFEST, "digest": digest, "size": len(raw)})
    for number in range(6):
        alice.image(f"acme/service-{number}", f"v{number}", [os.urandom(30_000 * number + 10)], config("amd64"))
    alice.manifest("bob/notes", "latest")
    alice.api("PATCH", "repositories/acme/web", public=True, description="Shop front: NGINX and the web application",
              readme="docker run -p 8080:8080 acme/web", immutable="1.*")  # fmt: skip
    alice.api("PUT", "repositories/acme/web/-/grant", team="acme/builders", level="read-write")
    alice.api("PUT", "accounts/acme/grant", team="acme/readers", level="read")
    alice.api("POST", "accounts/acme/webhooks", url="http://127.0.0.1:9/hook", events=["TAG_PUSH"], form="dtr")
    alice.api("POST", "accounts/acme/rules", repository="acme/service-*", tags="*", keep_last="3")
    alice.api("PATCH", "accounts/acme", quota=50_000_000)
    alice.api("POST", "accounts/alice/tokens", label="ci-runner-3", level="read-write", days=365)
    alice.api("POST", "gc", dry_run=True, wait=True)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("registry"), pages=pages) as it:
        fill(populate(it))
        yield it


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as it:
        yield it


@pytest.fixture(scope="module")
def surfer(registry: Served, chromium: Browser) -> Tab:
    """A tab where alice is logged in, through the form."""
    tab = chromium.tab()
    tab.size(1200, 800)
    tab.open(f"http://127.0.0.1:{registry.port}/login?next=/system/audit")
    tab.fill("#name", "alice")
    tab.fill("#password", PASSWORD)
    tab.follow("main button")
    assert tab.run("location.pathname") == "/system/audit"
    return tab


@pytest.fixture
def tab(registry: Served, chromium: Browser, surfer: Tab) -> Iterator[Tab]:
    chromium.events.clear()
    surfer.size(1200, 800)
    surfer.open(f"http://127.0.0.1:{registry.port}/")
    yield surfer
    told = [event for event in chromium.events if event["params"].get("entry", {}).get("level", "error") == "error"]
    assert not told, "no script error, no refused load"


@pytest.fixture
def alice(registry: Served) -> Client:
    return registry.client("alice", PASSWORD)


def at(tab: Tab, registry: Served, path: str) -> None:
    tab.open(f"http://127.0.0.1:{registry.port}{path}")


def test_search_as_one_types(tab: Tab) -> None:
    tab.run("window.kept = true")
    tab.key("/", "Slash", "/")
    assert tab.run("document.activeElement.id") == "q", "the slash key goes to the search"
    tab.fill("#q", "note")
    tab.wait("document.querySelectorAll('#rows tbody tr').length === 1")
    assert "bob/notes" in tab.run("document.querySelector('#rows').innerText")
    assert tab.run("location.search") == "?q=note", "the address can be sent to somebody"
    tab.fill("#q", "nothing like it")
    tab.wait("document.querySelector('#rows').innerText.includes('Nothing here is called')")
    assert tab.run("window.kept"), "the page was never loaded again"


def test_a_push_appears_without_a_reload(tab: Tab, alice: Client, registry: Served) -> None:
    at(tab, registry, "/r/acme/service-1")
    tab.run("window.kept = true")
    tab.wait("document.querySelectorAll('#rows tbody tr').length === 1")
    alice.manifest("acme/service-1", "brand-new")
    tab.wait("document.querySelector('#rows').innerText.includes('brand-new')")
    assert tab.run("window.kept")


def test_a_collection_is_watched(tab: Tab, registry: Served) -> None:
    at(tab, registry, "/system/storage")
    before = tab.run("document.querySelectorAll('#jobs tbody tr').length")
    tab.follow("main button", "Dry run")
    tab.wait(f"document.querySelectorAll('#jobs tbody tr').length === {before + 1}")
    tab.wait("document.querySelector('#jobs tbody').innerText.includes('done, dry run')")
    assert "The dry run has begun." in tab.text()


def test_delete_a_tag_by_the_page(tab: Tab, alice: Client, registry: Served) -> None:
    alice.manifest("acme/service-2", "old")
    at(tab, registry, "/r/acme/service-2/-/tags/old")
    tab.run("document.querySelector('.danger details').open = true")
    tab.follow(".danger button", "Delete old")
    assert "old is deleted." in tab.text()
    assert alice("GET", "/v2/acme/service-2/manifests/old").status == 404


def test_a_refusal_leaves_the_form_as_it_was_typed(tab: Tab, registry: Served) -> None:
    at(tab, registry, "/n/acme/-/members")
    tab.fill("#member", "nobody-of-that-name")
    tab.click("form button", "Add")
    tab.wait("document.querySelector('#said').innerText.includes('no such account')")
    assert tab.run("document.querySelector('#member').value") == "nobody-of-that-name"
    assert tab.run("document.activeElement.id") == "said", "a screen reader is taken to the message"


@pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:DeprecationWarning")  # ldap3 on pyasn1
def test_settings_are_saved_by_the_page(tab: Tab, alice: Client, registry: Served) -> None:
    at(tab, registry, "/system/settings")
    tab.fill("#domain", "registry.example:5000")
    tab.follow("main button", "Save")
    at(tab, registry, "/r/acme/web")
    assert "docker push registry.example:5000/acme/web:TAG" in tab.text()
    at(tab, registry, "/system/settings")
    tab.fill("#url", "ldap://127.0.0.1:9")
    tab.fill("#base", "ou=people,dc=example,dc=org")
    tab.run("document.querySelector('#url').form.querySelector('button').click()")
    tab.wait("[...document.querySelectorAll('h2')].some(e => e.innerText === 'Connection test')")
    tab.click("main button", "Test")
    tab.wait("document.querySelector('#said').innerText.includes('connect')")
    at(tab, registry, "/system/storage")
    tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.run("document.querySelector('#gc-every').selectedOptions[0].text") == "every day"
    tab.run("document.querySelector('#gc-every').value = '604800'")
    tab.run("document.querySelector('#gc-every').form.querySelector('button').click()")
    tab.wait("document.querySelector('#said').innerText.includes('Saved')")
    assert alice.api("GET", "settings")["gc_every_seconds"] == "604800"
    alice.api("PUT", "settings/gc_every_seconds", value="5400")
    at(tab, registry, "/system/storage")
    assert tab.run("document.querySelector('#gc-every').selectedOptions[0].text") == "90 minutes", "set by other means"
    for name, value in (("domain", ""), ("ldap", ""), ("gc_every_seconds", "86400")):
        alice.api("PUT", f"settings/{name}", value=value)


LOADS = 100


def test_a_webhook_is_sent_again(tab: Tab, alice: Client, registry: Served) -> None:
    alice.manifest("acme/service-3", "told")
    told = "!!document.querySelector('#deliveries tbody tr') && document.querySelector('#deliveries').innerText.includes('again')"
    for _ in range(LOADS):  # the page shows what was delivered when it was loaded
        at(tab, registry, "/n/acme/-/webhooks")
        if tab.run(told):
            break
    tab.follow("#deliveries button", "Send again")
    assert "It is sent again." in tab.text()


def test_by_keyboard_alone(tab: Tab) -> None:
    tab.key("Tab")
    assert tab.run("document.activeElement.className") == "skip"
    box = tab.run("document.activeElement.getBoundingClientRect().left")
    assert box >= 0, "the skip link shows itself"
    tab.key("Enter", text="\r")
    tab.wait("location.hash === '#main'")
    tab.key("Tab")
    assert tab.run("document.activeElement.id") == "q"
    shown = tab.run("getComputedStyle(document.activeElement).outlineStyle")
    assert shown == "solid", "one sees where one is"


@pytest.mark.parametrize("name", list(PATHS))
def test_for_a_screen_reader(tab: Tab, registry: Served, chromium: Browser, name: str) -> None:
    at(tab, registry, PATHS[name])
    chromium.events.clear()  # the page that is missing has told so
    tab.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.run("document.documentElement.lang") == "en"
    assert tab.run("document.querySelectorAll('h1').length") == 1
    assert tab.run("[...document.querySelectorAll('[id]')].every((e, i, all) => all.findIndex(o => o.id === e.id) === i)")
    controls = {"button", "link", "textbox", "searchbox", "checkbox", "combobox", "spinbutton", "table"}
    for node in tab.nodes():
        role = node.get("role", {}).get("value")
        if role in controls - {"table"}:
            assert node.get("name", {}).get("value"), f"a {role} without a name: {node.get('properties')}"
    assert tab.run("[...document.querySelectorAll('th')].every(e => e.scope)")


@pytest.mark.parametrize("name", list(PATHS))
def test_on_a_phone(tab: Tab, registry: Served, chromium: Browser, name: str) -> None:
    tab.size(360, 740, phone=True)
    at(tab, registry, PATHS[name])
    chromium.events.clear()
    assert tab.run("document.documentElement.scrollWidth") <= 360, "nothing hangs over the edge"
    small = tab.run("[...document.querySelectorAll('main button, main input:not([type=hidden]):not([type=checkbox])')]"
                    ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 32).length")  # fmt: skip
    assert small == 0, "a thumb can hit it"


def test_without_scripts_all_works(registry: Served, chromium: Browser) -> None:
    tab = chromium.tab()
    tab.size(1200)
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    at(tab, registry, "/?q=web")
    assert "acme/web" in tab.text()
    assert "acme/service" not in tab.text()


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_read(dark: bool) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for every pair that is used for text."""
    css = resources.files("dockyard.web").joinpath("static", "app.css").read_text()
    block = re.search(r':root\[data-theme="dark"\] \{(.*?)\}' if dark else r"^:root \{(.*?)\}", css, re.DOTALL | re.MULTILINE)
    assert block
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block[1]))
    assert block[1].count("#") == len(colours)
    pairs = [("text", "page"), ("text", "card"), ("text", "row"), ("text", "code"), ("soft", "page"), ("soft", "card"),
             ("soft", "row"), ("link", "page"), ("link", "card"), ("link", "code"), ("link", "row"),
             ("on-accent", "accent"), ("good", "good-back"), ("bad", "bad-back"), ("warn", "warn-back"), ("bad", "card")]  # fmt: skip
    for ink, paper in pairs:
        assert contrast(colours[ink], colours[paper]) >= 4.5, f"{ink} on {paper}"


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.skipif("DOCKYARD_SCREENSHOTS" not in os.environ, reason="makes the pictures of docs/registry only")
def test_pictures(tab: Tab, registry: Served) -> None:
    place = Path(os.environ["DOCKYARD_SCREENSHOTS"])
    for name in ("repositories", "tags", "tag", "members", "webhooks", "storage", "settings"):
        tab.size(1100, 700)
        at(tab, registry, PATHS[name])
        tab.picture(place / f"{name}.png")
    tab.size(390, 844, phone=True, dark=True)
    for name in ("repositories", "tags"):
        at(tab, registry, PATHS[name])
        tab.picture(place / f"{name}-phone-dark.png")
    tab.size(1100, 700, dark=True)
    at(tab, registry, PATHS["tag"])
    tab.picture(place / "tag-dark.png")
