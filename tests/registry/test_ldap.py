"""Logging in and team membership by a real directory server: Debian's slapd, private, on a loopback port."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.testing.registries import free_port
from dockyard.testing.registry_server import PASSWORD, Client, Served, served

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated. Please use:DeprecationWarning")  # ldap3 on pyasn1
_START = 30.0
BASE = "dc=example,dc=org"
SEARCHER = f"cn=admin,{BASE}"
CONFIGURATION = """include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {root}/pid
database mdb
maxsize 10485760
suffix "dc=example,dc=org"
rootdn "cn=admin,dc=example,dc=org"
rootpw searching
directory {root}/data
"""
PEOPLE = ("ada", "grace", "linus", "mallory")
ENTRIES = f"""dn: {BASE}
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: ou=people,{BASE}
objectClass: organizationalUnit
ou: people

dn: ou=groups,{BASE}
objectClass: organizationalUnit
ou: groups
""" + "".join(
    f"""
dn: uid={name},ou=people,{BASE}
objectClass: inetOrgPerson
uid: {name}
cn: {name.title()} Example
sn: Example
employeeType: {"crew" if name in ("ada", "linus") else "guest"}
userPassword: secret of {name}
""" for name in PEOPLE
) + f"""
dn: cn=builders,ou=groups,{BASE}
objectClass: groupOfNames
cn: builders
member: uid=ada,ou=people,{BASE}
member: uid=grace,ou=people,{BASE}

dn: cn=posix,ou=groups,{BASE}
objectClass: posixGroup
cn: posix
gidNumber: 100
memberUid: linus
"""  # fmt: skip


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import ldap3

    root: Path = tmp_path_factory.mktemp("slapd")
    (root / "data").mkdir()
    (root / "slapd.conf").write_text(CONFIGURATION.format(root=root))
    subprocess.run(["slapadd", "-f", root / "slapd.conf"], input=ENTRIES, text=True, check=True, capture_output=True)
    url = f"ldap://127.0.0.1:{free_port()}"
    process = subprocess.Popen(["slapd", "-h", url, "-f", root / "slapd.conf", "-d", "0"], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + _START
        while True:
            try:
                ldap3.Connection(ldap3.Server(url, get_info=ldap3.NONE), auto_bind=True).unbind()
                break
            except ldap3.core.exceptions.LDAPException:
                if time.monotonic() > end or process.poll() is not None:
                    raise
                time.sleep(0.1)  # a real server is starting; bounded by _START
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def registry(slapd: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("registry")) as it:
        it.run(it.registry.accounts.create("boss", password=PASSWORD, admin=True))
        boss = it.client("boss", PASSWORD)
        boss.api("PUT", "settings/ldap", value=json.dumps(settings(slapd)))
        boss.api("POST", "accounts", name="acme", kind="org")
        yield it


def settings(url: str, **changed: str) -> dict[str, str]:
    return {"url": url, "base": f"ou=people,{BASE}", "bind_dn": SEARCHER, "bind_password": "searching"} | changed


@pytest.fixture
def boss(registry: Served) -> Client:
    return registry.client("boss", PASSWORD)


def login(registry: Served, name: str, password: str) -> int:
    return int(registry.client(name, password)("GET", "/v2/").status)


def test_people_log_in_with_their_own_password(registry: Served, boss: Client) -> None:
    assert login(registry, "ada", "secret of ada") == 200
    account = next(a for a in boss.api("GET", "accounts") if a["name"] == "ada")
    assert (account["source"], account["full_name"]) == ("ldap", "Ada Example")
    registry.client("ada", "secret of ada").manifest("ada/app", "v1")
    assert login(registry, "boss", PASSWORD) == 200, "local accounts go on"


@pytest.mark.parametrize(
    ("name", "password"),
    [("ada", "wrong"), ("ada", ""), ("nobody", "x"), ("*", "secret of ada"), ("ada)(uid=*", "x"), ("a*", "secret of ada"),
     ("uid=ada", "secret of ada"), ("boss", "searching"), ("admin", "searching"), ("ADA", "secret of ada")],
)  # fmt: skip
def test_nobody_else_does(registry: Served, name: str, password: str) -> None:
    assert login(registry, name, password) == 401


def test_teams_by_group_and_by_search(registry: Served, boss: Client) -> None:
    for name in PEOPLE:
        login(registry, name, f"secret of {name}")
    wanted = {"builders": ("group", f"cn=builders,ou=groups,{BASE}", "member", ["ada", "grace"]),
              "posix": ("group", f"cn=posix,ou=groups,{BASE}", "memberUid", ["linus"]),
              "crew": ("search", f"ou=people,{BASE}", "(employeeType=crew)", ["ada", "linus"])}  # fmt: skip
    for team, (mode, base, match, _) in wanted.items():
        boss.api("POST", "accounts/acme/teams", name=team)
        boss.api("PUT", f"accounts/acme/teams/{team}/ldap", mode=mode, base=base, match=match)
    boss.api("PUT", "accounts/acme/teams/crew/members/mallory")
    boss.api("POST", "ldap/sync")
    teams = {team["name"]: team["members"] for team in boss.api("GET", "accounts/acme/teams")}
    assert teams == {team: members for team, (*_, members) in wanted.items()}, "mallory is out again"
    assert boss.api("POST", "ldap/sync") == {"changes": 0}
    boss.manifest("acme/app", "v1")
    boss.api("PUT", "repositories/acme/app/-/grant", team="acme/crew", level="read")
    assert registry.client("linus", "secret of linus")("GET", "/v2/acme/app/tags/list").status == 200
    assert registry.client("grace", "secret of grace")("GET", "/v2/acme/app/tags/list").status == 403


def test_the_connection_test_tells_step_by_step(registry: Served, boss: Client, slapd: str) -> None:
    good = boss.api("POST", "ldap/test", name="ada", password="secret of ada")
    assert [(s["step"], s["ok"]) for s in good] == [
        ("connect", True), ("bind the search account", True), ("find people", True), ("log in as ada", True)
    ]  # fmt: skip
    wrong = boss.api("POST", "ldap/test", **settings(slapd, bind_password="wrong"))
    assert [(s["step"], s["ok"]) for s in wrong] == [("connect", True), ("bind the search account", False)]
    away = boss.api("POST", "ldap/test", **settings("ldap://127.0.0.1:9"))
    assert [s["ok"] for s in away] == [False]
    assert boss("POST", "/api/v0/ldap/test", b'{"url": 7}').status == 400


def test_the_search_account_s_password_stays_inside(boss: Client, slapd: str) -> None:
    assert "searching" not in json.dumps(boss.api("GET", "settings"))
    assert "searching" not in json.dumps(boss.api("GET", "audit"))
    boss.api("PUT", "settings/ldap", value=json.dumps(settings(slapd, bind_password="")))
    assert boss.api("POST", "ldap/test")[1]["ok"], "an empty one means: as it was"


def test_a_directory_that_is_away(registry: Served, boss: Client, slapd: str) -> None:
    boss.api("PUT", "settings/ldap", value=json.dumps(settings("ldap://127.0.0.1:9")))
    try:
        assert login(registry, "grace", "another try") == 503, "not 401: a client must not forget its password"
        assert login(registry, "boss", PASSWORD) == 200
    finally:
        boss.api("PUT", "settings/ldap", value=json.dumps(settings(slapd)))
