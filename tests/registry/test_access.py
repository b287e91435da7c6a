"""Who may do what: every role, every verb, every kind of repository, over HTTP with a login and with a token.

The table below is written down from the requirement, not computed. Nothing is changed by a probe: what is allowed ends
at 404 or 400 behind the gate, what is refused ends at 401 or 403 before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from dockyard.registry.access import Caller, Facts, Level, decide
from dockyard.testing.registry_server import PASSWORD, Client, Served, served

MISSING = "sha256:" + "0" * 64
KINDS = {
    "private": "acme/private", "public": "acme/public", "new": "acme/new", "other": "rival/app", "nowhere": "ghost/app",
    "library": "plain", "own": "{role}/own",
}  # fmt: skip

TABLE = """
role            private     public      new         other       nowhere     library     own
anonymous       none        read        none        none        none        none        none
stranger        none        read        none        none        none        none        admin
member          none        read        none        none        none        none        admin
reader          read        read        none        none        none        none        admin
writer          read-write  read        none        none        none        none        admin
keeper          admin       read        none        none        none        none        admin
teamreader      read        read        none        none        none        none        admin
teamwriter      read-write  read        none        none        none        none        admin
bothteams       read-write  read        none        none        none        none        admin
nsreader        read        read        none        none        none        none        admin
nswriter        read-write  read-write  read-write  none        none        none        admin
nsadmin         admin       admin       admin       none        none        none        admin
owner           admin       admin       admin       none        none        none        admin
readrobot       read        read        read        none        none        none        read
writerobot      read-write  read-write  read-write  none        none        none        read-write
boss            admin       admin       admin       admin       admin       admin       admin
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()]
EXPECTED = {row[0]: dict(zip(ROWS[0][1:], row[1:], strict=True)) for row in ROWS[1:]}
ORDER = ("none", "read", "read-write", "admin")
ROBOTS = {"readrobot": "read", "writerobot": "read-write"}
"""Tokens of an organisation's owner, with less than he has."""

VERBS = {
    "get manifest": ("GET", "/v2/{repo}/manifests/none", "pull", "read"),
    "head manifest": ("HEAD", "/v2/{repo}/manifests/none", "pull", "read"),
    "get blob": ("GET", "/v2/{repo}/blobs/" + MISSING, "pull", "read"),
    "list tags": ("GET", "/v2/{repo}/tags/list", "pull", "read"),
    "referrers": ("GET", "/v2/{repo}/referrers/" + MISSING, "pull", "read"),
    "begin upload": ("POST", "/v2/{repo}/blobs/uploads/?digest=wrong", "push", "read-write"),
    "look at upload": ("GET", "/v2/{repo}/blobs/uploads/none", "push", "read-write"),
    "send chunk": ("PATCH", "/v2/{repo}/blobs/uploads/none", "push", "read-write"),
    "end upload": ("PUT", "/v2/{repo}/blobs/uploads/none?digest=" + MISSING, "push", "read-write"),
    "cancel upload": ("DELETE", "/v2/{repo}/blobs/uploads/none", "push", "read-write"),
    "put manifest": ("PUT", "/v2/{repo}/manifests/v1", "push", "read-write"),
    "delete manifest": ("DELETE", "/v2/{repo}/manifests/" + MISSING, "delete", "read-write"),
    "delete tag": ("DELETE", "/v2/{repo}/manifests/none", "delete", "read-write"),
    "delete blob": ("DELETE", "/v2/{repo}/blobs/" + MISSING, "delete", "read-write"),
}
ADMIN = {
    "see": ("GET", "repositories/{repo}", "read"),
    "delete by page": ("DELETE", "repositories/{repo}/-/manifests/none", "read-write"),
    "see grants": ("GET", "repositories/{repo}/-/grants", "admin"),
    "grant": ("PUT", "repositories/{repo}/-/grant", "admin"),
    "change": ("PATCH", "repositories/{repo}", "admin"),
    "mirrors": ("GET", "repositories/{repo}/-/mirrors", "admin"),
    "mirror": ("POST", "repositories/{repo}/-/mirrors", "admin"),
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("registry")) as it:
        arrange(it)
        yield it


CREDENTIALS: dict[str, str] = {}


def arrange(it: Served) -> None:
    it.run(it.registry.accounts.create("boss", password=PASSWORD, admin=True))
    boss = it.client("boss", PASSWORD)
    people = [role for role in EXPECTED if role not in {"anonymous", "boss", *ROBOTS}]
    for name in people:
        boss.api("POST", "accounts", name=name)
        CREDENTIALS[name] = boss.api("POST", f"accounts/{name}/tokens", label="all")["token"]
    CREDENTIALS["boss"] = PASSWORD
    for org in ("acme", "rival"):
        boss.api("POST", "accounts", name=org, kind="org")
    for name in ("acme/private", "rival/app", "plain", *(f"{person}/own" for person in people), "boss/own"):
        boss.manifest(name, "v1")
    boss.manifest("acme/public", "v1")
    boss.api("PATCH", "repositories/acme/public", public=True)
    boss.api("PUT", "accounts/acme/members/owner", owner=True)
    for name in ("member", "teamreader", "teamwriter", "bothteams"):
        boss.api("PUT", f"accounts/acme/members/{name}")
    for name, level in (("reader", "read"), ("writer", "read-write"), ("keeper", "admin")):
        boss.api("PUT", "repositories/acme/private/-/grant", user=name, level=level)
    for name, level in (("nsreader", "read"), ("nswriter", "read-write"), ("nsadmin", "admin")):
        boss.api("PUT", "accounts/acme/grant", user=name, level=level)
    for team, people, level in (("r", ("teamreader", "bothteams"), "read"), ("w", ("teamwriter", "bothteams"), "read-write")):
        boss.api("POST", "accounts/acme/teams", name=team)
        boss.api("PUT", "repositories/acme/private/-/grant", team=f"acme/{team}", level=level)
        for person in people:
            boss.api("PUT", f"accounts/acme/teams/{team}/members/{person}")
    for role, level in ROBOTS.items():
        CREDENTIALS[role] = boss.api("POST", "accounts/owner/tokens", label=role, level=level)["token"]


def client_of(it: Served, role: str) -> Client:
    if role == "anonymous":
        return it.client()
    return it.client("owner" if role in ROBOTS else role, CREDENTIALS[role])


def repository(role: str, kind: str) -> str:
    return KINDS[kind].format(role={"anonymous": "stranger", "readrobot": "owner", "writerobot": "owner"}.get(role, role))


@pytest.mark.parametrize("role", list(EXPECTED))
def test_every_verb_on_every_kind(registry: Served, role: str) -> None:
    client = client_of(registry, role)
    wrong = []
    for kind, level in EXPECTED[role].items():
        name = repository(role, kind)
        token = client.token(f"repository:{name}:pull,push,delete")
        # Without a token everybody is first sent to fetch one.
        ways = [("token", token), *([("login", client.authorization)] if client.authorization else [])]
        for verb, (method, path, action, needed) in VERBS.items():
            wanted = ORDER.index(level) >= ORDER.index(needed)
            for how, authorization in ways:
                headers = {"Authorization": authorization} if authorization else {}
                answer = client(method, path.format(repo=name), **headers)
                if (answer.status not in {401, 403}) != wanted:
                    wrong.append(f"{role} {verb} {kind} by {how}: {answer.status}, {level} expected ({action})")
    assert not wrong


@pytest.mark.parametrize("role", list(EXPECTED))
def test_every_operation_on_every_kind(registry: Served, role: str) -> None:
    client = client_of(registry, role)
    wrong = []
    for kind, level in EXPECTED[role].items():
        name = repository(role, kind)
        for what, (method, path, needed) in ADMIN.items():
            wanted = ORDER.index(level) >= ORDER.index(needed)
            answer = client(method, f"/api/v0/{path.format(repo=name)}", b"{}", Content_Type="application/json")
            if (answer.status not in {401, 403}) != wanted and not (kind in {"new", "nowhere"} and answer.status == 404):
                wrong.append(f"{role} {what} {kind}: {answer.status}, {level} expected")
    assert not wrong


@pytest.mark.parametrize("role", list(EXPECTED))
def test_lists_show_what_may_be_read(registry: Served, role: str) -> None:
    client = client_of(registry, role)
    readable = {repository(role, kind) for kind, level in EXPECTED[role].items() if level != "none" and kind not in {"new", "nowhere"}}
    hidden = {repository(role, kind) for kind, level in EXPECTED[role].items() if level == "none"}
    header = client.authorization or client.token("registry:catalog:*")
    listed = set(json.loads(registry.client(authorization=header)("GET", "/v2/_catalog").data)["repositories"])
    found = {r["name"] for r in json.loads(client("GET", "/v1/search?q=&n=100").data)["results"]}
    for names in (listed, found):
        assert readable <= names
        assert not hidden & names


NAMESPACE_OPERATIONS = [
    ("GET", "accounts/acme/members"), ("PUT", "accounts/acme/members/stranger"), ("GET", "accounts/acme/teams"),
    ("POST", "accounts/acme/teams"), ("PUT", "accounts/acme/grant"), ("GET", "accounts/acme/webhooks"),
    ("POST", "accounts/acme/webhooks"), ("GET", "accounts/acme/deliveries"), ("POST", "accounts/acme/rules"),
    ("POST", "accounts/acme/deliveries/1/again"), ("GET", "accounts/acme/usage"), ("GET", "accounts/acme/tokens"),
]  # fmt: skip
SYSTEM_OPERATIONS = [
    ("GET", "accounts"), ("POST", "accounts"), ("PATCH", "accounts/stranger"), ("DELETE", "accounts/nobody"),
    ("GET", "upstreams"), ("POST", "upstreams"), ("DELETE", "upstreams/x"), ("GET", "audit"), ("GET", "jobs"),
    ("POST", "gc/1/stop"), ("GET", "settings"), ("PUT", "settings/none"), ("POST", "ldap/sync"),
    ("PUT", "accounts/acme/teams/r/ldap"),
]  # fmt: skip


@pytest.mark.parametrize("role", list(EXPECTED))
def test_namespaces_and_the_system(registry: Served, role: str) -> None:
    client = client_of(registry, role)
    for operations, allowed in ((NAMESPACE_OPERATIONS, {"owner", "boss"}), (SYSTEM_OPERATIONS, {"boss"})):
        for method, path in operations:
            answer = client(method, f"/api/v0/{path}", b'{"mode": "bad", "level": "bad"}')
            assert (answer.status not in {401, 403}) == (role in allowed), f"{role} {method} {path}: {answer.status}"


def test_a_token_is_no_key_to_administration(registry: Served) -> None:
    """A bearer token names repositories; whoever steals it gets these and nothing else of the account."""
    token = client_of(registry, "boss").token("repository:acme/private:pull,push,delete")
    thief = registry.client(authorization=token)
    for method, path in (*NAMESPACE_OPERATIONS, *SYSTEM_OPERATIONS, ("GET", "repositories/acme/private")):
        assert thief(method, f"/api/v0/{path}", b"{}").status == 401, path
    assert thief("GET", "/v2/rival/app/tags/list").status == 401
    assert thief("GET", "/v2/_catalog").status == 401, "the list of everything is another scope"


def test_a_mount_needs_the_right_to_read_its_source(registry: Served) -> None:
    boss = client_of(registry, "boss")
    secret = boss.blob("rival/app", b"only rival may read this")
    for role in ("stranger", "owner", "nswriter"):
        client = client_of(registry, role)
        target = repository(role, "own")
        for source in ("&from=rival/app", ""):
            token = client.token(f"repository:{target}:pull,push", "repository:rival/app:pull")
            for authorization in (client.authorization, token):
                answer = registry.client(authorization=authorization)(
                    "POST", f"/v2/{target}/blobs/uploads/?mount={secret}{source}"
                )
                assert answer.status == 202, "an ordinary upload begins; nothing says whether the blob exists"
    robbed = boss.token("repository:acme/private:pull,push")
    answer = registry.client(authorization=robbed)("POST", f"/v2/acme/private/blobs/uploads/?mount={secret}&from=rival/app")
    assert answer.status == 202, "the account may read it, this token may not"


def test_a_refusal_says_where_one_may_push(registry: Served) -> None:
    client = client_of(registry, "nswriter")
    answer = client("POST", "/v2/rival/app/blobs/uploads/")
    error = json.loads(answer.data)["errors"][0]
    assert (answer.status, error["code"]) == (403, "DENIED")
    assert "this login may push to nswriter/, acme/" in error["message"]


def test_a_token_that_is_too_narrow_says_what_it_lacks(registry: Served) -> None:
    token = client_of(registry, "boss").token("repository:acme/private:pull")
    answer = registry.client(authorization=token)("POST", "/v2/acme/private/blobs/uploads/")
    error = json.loads(answer.data)["errors"][0]
    assert (answer.status, error["code"]) == (401, "UNAUTHORIZED")
    assert "the token lacks push on acme/private" in error["message"]
    challenge = answer.headers["www-authenticate"]
    assert 'scope="repository:acme/private:pull,push"' in challenge
    assert 'error="insufficient_scope"' in challenge


def test_hidden_and_missing_look_the_same(registry: Served) -> None:
    stranger = client_of(registry, "stranger")
    for path in ("/v2/{}/manifests/v1", "/v2/{}/tags/list", "/v2/{}/blobs/uploads/"):
        answers = [stranger("GET", path.format(name)) for name in ("rival/app", "rival/gone", "ghost/app")]
        assert len({answer.status for answer in answers}) == 1
        shapes = {answer.data.replace(b"rival/app", b"X").replace(b"rival/gone", b"X").replace(b"ghost/app", b"X") for answer in answers}
        assert len(shapes) == 1


def test_refusals_are_recorded(registry: Served) -> None:
    client_of(registry, "reader")("DELETE", "/v2/acme/private/manifests/v1")
    boss = client_of(registry, "boss")
    boss.api("PUT", "settings/domain", value="")  # the record is written beside the answer: before this, as writes are in a line
    records = [r for r in boss.api("GET", "audit") if r["actor"] == "reader" and r["refused"]]
    assert any(r["action"] == "delete" and r["object"] == "acme/private" and r["address"] == "127.0.0.1" for r in records)


@pytest.mark.parametrize("cap", list(Level))
@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("public", [True, False])
def test_a_cap_is_never_exceeded(cap: Level, exists: bool, public: bool) -> None:
    for owner in (True, False):
        for admin in (True, False):
            for granted in Level:
                for whole in Level:
                    caller = Caller("x", 1, admin, cap)
                    facts = Facts("x/y", exists, public, owner, (granted,), (whole,))
                    assert decide(caller, facts) <= cap


def test_a_locked_account_is_nobody(registry: Served) -> None:
    boss = client_of(registry, "boss")
    boss.api("POST", "accounts", name="leaver", password=PASSWORD)
    leaver = registry.client("leaver", PASSWORD)
    assert leaver("GET", "/v2/").status == 200
    robot = registry.client("leaver", boss.api("POST", "accounts/leaver/tokens", label="r", level="read")["token"])
    boss.api("PATCH", "accounts/leaver", active=False)
    assert leaver("GET", "/v2/").status == 401
    assert robot("GET", "/v2/").status == 401
    boss.api("PATCH", "accounts/leaver", active=True)
    boss.api("DELETE", "accounts/leaver")
    assert leaver("GET", "/v2/").status == 401
