"""The pages over HTTP: what they refuse, what they escape, and that a form is the administration API and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from dockyard.errors import DockyardError
from dockyard.registry.core import Config
from dockyard.testing.registry_server import PASSWORD, Client, Served, populate, served
from dockyard.web import pages
from dockyard.web.forms import form_of, parse_size
from dockyard.web.session import safe_next


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("registry"), pages=pages) as it:
        alice = populate(it)
        alice.manifest("acme/web", "1.0")
        alice.manifest("acme/open", "1.0")
        alice.api("PATCH", "repositories/acme/open", public=True, description="<script>alert(1)</script>")
        yield it


class Surfer:
    """A browser without scripts: cookies, pages, forms."""

    def __init__(self, client: Client, name: str = "") -> None:
        self.client = client
        self.jar: dict[str, str] = {}
        if name:
            self.get("/login")
            answer = self.post("/login", name=name, password=PASSWORD, next="/")
            assert answer.status == 303, answer.data

    def _send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        if self.jar:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.jar.items())
        answer = self.client(method, path, body, **headers)
        for line in answer.headers.getlist("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.jar[name] = value
            if "Max-Age=0" in line:
                del self.jar[name]
        return answer

    def get(self, path: str, **headers: str) -> Any:
        self.page = self._send("GET", path, **headers)
        return self.page

    @property
    def csrf(self) -> str:
        found = re.search(r'name="_csrf" value="(\w+)"', self.page.data.decode())
        assert found, self.page.data
        return found[1]

    def post(self, path: str, _headers: dict[str, str] | None = None, **fields: Any) -> Any:
        fields.setdefault("_csrf", self.csrf)
        body = urlencode(fields, doseq=True)
        headers = {"Content-Type": "application/x-www-form-urlencoded"} | (_headers or {})
        return self._send("POST", path, body, **{k.replace("-", "_"): v for k, v in headers.items()})

    def act(self, call: str, **fields: Any) -> Any:
        return self.post("/act", _call=call, _back="/r/acme/web", **fields)


@pytest.fixture
def anyone(registry: Served) -> Surfer:
    return Surfer(registry.client())


@pytest.fixture
def alice(registry: Served) -> Surfer:
    surfer = Surfer(registry.client(), "alice")
    surfer.get("/")
    return surfer


@pytest.fixture
def carol(registry: Served) -> Surfer:
    surfer = Surfer(registry.client(), "carol")
    surfer.get("/")
    return surfer


def test_nothing_inline_nothing_from_elsewhere(alice: Surfer) -> None:
    for path in ("/", "/r/acme/web", "/r/acme/web/-/tags/1.0", "/n/acme/-/members", "/system", "/system/settings"):
        page = alice.get(path)
        text = page.data.decode()
        assert page.status == 200
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", text), "nothing inline"
        assert not re.search(r'(?:src|href|action)="(?:https?:)?//', text), "nothing from elsewhere"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-frame-options"] == "DENY"


def test_what_people_write_is_escaped(anyone: Surfer) -> None:
    for path in ("/", "/r/acme/open"):
        text = anyone.get(path).data
        assert b"&lt;script&gt;alert(1)" in text
        assert b"<script>alert(1)" not in text
    text = anyone.get("/?q=%22%3E%3Cimg%20src=x%3E").data
    assert b"<img src=x>" not in text
    assert b"<svg/onload" not in anyone.get("/nowhere/%3Csvg/onload=1%3E").data


def test_anonymous_sees_public_only(anyone: Surfer) -> None:
    listed = anyone.get("/").data
    assert b"acme/open" in listed
    assert b"acme/web" not in listed
    assert anyone.get("/r/acme/open").status == 200
    private = anyone.get("/r/acme/web")
    assert (private.status, private.headers["location"]) == (303, "/login?next=/r/acme/web")
    missing = anyone.get("/r/acme/none")
    assert missing.headers["location"] == "/login?next=/r/acme/none", "the same for what does not exist"
    assert anyone.get("/system").status == 303


def test_a_wrong_password_says_so_and_keeps_the_name(anyone: Surfer) -> None:
    anyone.get("/login")
    answer = anyone.post("/login", name="bob", password="not his", next="/")
    assert answer.status == 401
    assert b"incorrect username or password" in answer.data
    assert b'value="bob"' in answer.data
    assert not any("session" in name for name in anyone.jar)


def test_logout_ends_the_session_in_the_database(alice: Surfer) -> None:
    session = dict(alice.jar)
    assert alice.post("/logout").status == 303
    alice.jar = session
    assert alice.get("/system").status == 303, "the old cookie opens nothing"


def test_a_password_change_ends_sessions(registry: Served) -> None:
    boss = registry.client("alice", PASSWORD)
    boss.api("POST", "accounts", name="dora", password=PASSWORD)
    here, there = Surfer(registry.client(), "dora"), Surfer(registry.client(), "dora")
    here.get("/n/dora/-/account")
    wrong = here.act("POST accounts/dora/password", old="not it at all", new="a new password")
    assert wrong.status == 401
    assert here.act("POST accounts/dora/password", old=PASSWORD, new="a new password").status == 303
    assert there.get("/n/dora/-/account").status == 303
    assert registry.client("dora", PASSWORD)("GET", "/v2/").status == 401
    assert registry.client("dora", "a new password")("GET", "/v2/").status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
     {"Origin": "null"}, {"Origin": "http://[evil"}, {"Origin": "evil.example"}],
)  # fmt: skip
def test_a_form_from_elsewhere_is_refused(alice: Surfer, headers: dict[str, str]) -> None:
    if headers == {"Origin": "null"}:
        headers = headers | {"Sec-Fetch-Site": "cross-site"}
    answer = alice.post("/act", headers, _call="DELETE repositories/acme/web", _back="/")
    assert answer.status == 403
    assert alice.get("/r/acme/web").status == 200


@pytest.mark.parametrize("token", ["", "0" * 48, "x"])
def test_a_form_without_its_token_is_refused(alice: Surfer, token: str) -> None:
    assert alice.act("DELETE repositories/acme/web", _csrf=token).status == 403
    assert alice.get("/r/acme/web").status == 200


def test_a_token_of_another_visitor_is_refused(alice: Surfer, carol: Surfer) -> None:
    assert alice.act("DELETE repositories/acme/web", _csrf=carol.csrf).status == 403


def test_forms_have_the_rights_of_the_api(carol: Surfer, registry: Served) -> None:
    """carol is a member of acme and owns nothing there."""
    for call in ("DELETE repositories/acme/open", "PATCH accounts/carol", "PUT settings/domain", "POST gc",
                 "PUT accounts/acme/members/carol", "POST accounts/bob/tokens", "GET audit"):  # fmt: skip
        assert carol.act(call, value="x", **{"owner:bool": "1", "admin:bool": "1"}).status == 403, call
    audit = registry.client("alice", PASSWORD).api("GET", "audit")
    assert any(row["actor"] == "carol" and row["refused"] for row in audit)


def test_a_form_does_its_operation_and_says_so(alice: Surfer, registry: Served) -> None:
    answer = alice.act("PATCH repositories/acme/web", description="new words", _done="Saved.", **{"public:bool": ""})
    assert (answer.status, answer.headers["location"]) == (303, "/r/acme/web")
    page = alice.get("/r/acme/web").data
    assert b"new words" in page
    assert b"Saved." in page
    assert b"Saved." not in alice.get("/r/acme/web").data, "said once"


def test_an_error_is_a_page_or_a_line(alice: Surfer) -> None:
    answer = alice.act("POST accounts/acme/webhooks", url="gopher://x", **{"events:list": "TAG_PUSH"})
    assert answer.status == 400
    assert b"http:// or https://" in answer.data
    line = alice.post("/act", {"HX-Request": "true"}, _call="POST accounts/acme/webhooks", url="x", _back="/",
                      **{"events:list": "TAG_PUSH"})  # fmt: skip
    assert (line.status, line.headers["hx-retarget"]) == (200, "#said")
    assert b"<html" not in line.data


def test_a_new_token_is_shown_once(alice: Surfer, registry: Served) -> None:
    answer = alice.act("POST accounts/alice/tokens", label="ci", level="read", **{"days:int": "1"})
    token = re.search(rb"dyt_[\w-]+", answer.data)
    assert token
    assert token[0] not in alice.get("/n/alice/-/tokens").data
    assert registry.client("alice", token[0].decode())("GET", "/v2/").status == 200


@pytest.mark.parametrize("path", ["/r/acme/web", "/", "/n/acme/-/webhooks", "/system/storage", "/system/audit"])
def test_htmx_gets_the_part_alone(alice: Surfer, path: str) -> None:
    part = alice.get(path, HX_Request="true").data
    assert b"<html" not in part
    assert b"<" in part


def test_the_stream_says_what_changed(registry: Served) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=20)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    try:
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.readline() == b"retry: 3000\n"
        registry.client("alice", PASSWORD).api("POST", "gc", dry_run=True, wait=True)
        while (line := answer.readline()) != b"event: jobs\n":
            assert line, "the stream ended"
    finally:
        answer.close()
        connection.close()


def test_a_watcher_does_not_hold_up_the_end(tmp_path_factory: pytest.TempPathFactory) -> None:
    import http.client

    with served(tmp_path_factory.mktemp("ending"), Config(auth="none"), pages=pages) as it:
        connection = http.client.HTTPConnection("127.0.0.1", it.port, timeout=60)
        connection.request("GET", "/events")
        answer = connection.getresponse()
        assert answer.readline() == b"retry: 3000\n"
    assert answer.read().endswith(b"\n"), "IncompleteRead would say that it was cut"
    connection.close()


def test_pages_are_open_when_authentication_is_off(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served(tmp_path_factory.mktemp("open"), Config(auth="none"), pages=pages) as it:
        surfer = Surfer(it.client())
        it.client().manifest("team/app", "1")
        assert surfer.get("/system/storage").status == 200
        assert surfer.get("/r/team/app/-/settings").status == 200
        saved = surfer.act("PATCH repositories/team/app", description="hello")
        assert saved.status == 303
        assert Surfer(it.client()).client("POST", "/act", "_call=POST+gc").status == 403, "no token, no form"


def test_hostile_configuration_is_shown_not_believed(registry: Served, alice: Surfer) -> None:
    config = {"os": 7, "config": {"Env": 5, "Cmd": {"a": 1}, "Labels": [1], "ExposedPorts": "80"}, "history": "no"}
    registry.client("alice", PASSWORD).image("acme/odd", "1", [b"x"], config)
    assert alice.get("/r/acme/odd").status == 200
    assert alice.get("/r/acme/odd/-/tags/1").status == 200


@pytest.mark.parametrize(
    ("text", "safe"),
    [("/r/a", "/r/a"), ("//evil.example", "/"), ("/\\evil.example", "/"), ("https://evil.example", "/"), ("", "/"),
     ("/a\r\nSet-Cookie: x", "/"), ("/?q=a b", "/?q=a%20b"), ("/r/a/-/x?y=1", "/r/a/-/x?y=1")],
)  # fmt: skip
def test_redirects_stay_here(text: str, safe: str) -> None:
    assert safe_next(text) == safe


def test_forms_are_read_by_their_types() -> None:
    form = form_of({
        "_call": ["PUT accounts/acme/members/{user}"], "_back": ["/n/acme"], "_done": ["{user} joined"],
        "path.user": ["bo/b"], "owner:bool": ["", "1"], "events:list": ["A", "", "B"], "quota:bytes": ["1.5 GiB"],
        "n:int": [""], "json.value.url": ["ldap://x"], "json.value.start_tls:bool": [""],
    })  # fmt: skip
    assert (form.method, form.path, form.back) == ("PUT", "accounts/acme/members/bo%2Fb", "/n/acme")
    assert form.body == {
        "owner": True, "events": ["A", "B"], "quota": 1610612736, "n": None,
        "value": '{"url":"ldap://x","start_tls":false}',
    }  # fmt: skip


@pytest.mark.parametrize("text", ["ten", "-1", "1e9", "10 XB", "1.2.3 MB", "9" * 400 + "x"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(DockyardError):
        parse_size("quota", text)


@pytest.mark.parametrize("call", ["", "TRACE x", "GET ../x y", "PUT a?b", "DELETE"])
def test_forms_that_name_no_operation(call: str) -> None:
    with pytest.raises(DockyardError):
        form_of({"_call": [call]})
