"""Forged tokens, broken names, digests, scopes, paths and bodies: refused with the right status, never a 500."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import socket
import time
from collections.abc import Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dockyard.errors import InvalidParameter
from dockyard.registry.manifest import parse_manifest
from dockyard.registry.names import check_digest, check_name
from dockyard.registry.ranges import parse_ranges
from dockyard.registry.token_api import format_scopes, parse_scopes
from dockyard.testing.registry_server import MANIFEST, PASSWORD, Served, digest, served

REPO = "alice/app"
FUZZ = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("registry")) as it:
        it.run(it.registry.accounts.create("alice", password=PASSWORD, admin=True))
        it.client("alice", PASSWORD).manifest(REPO, "v1")
        yield it


# ---- tokens


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    made: dict[str, Any] = {
        "iss": "dockyard-registry", "aud": "dockyard-registry", "sub": "alice", "iat": now, "nbf": now - 5,
        "exp": now + 300, "jti": "x", "access": [{"type": "repository", "name": REPO, "actions": ["pull", "push", "*"]}],
    }  # fmt: skip
    return {key: value for key, value in (made | changed).items() if value is not None}


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def key_of(registry: Served) -> tuple[str, Ed25519PrivateKey, bytes]:
    kid, key = next(iter(registry.registry.tokens._keys.items()))
    public = key.private.public_key()
    return kid, key.private, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def status(registry: Served, token: str) -> int:
    client = registry.client(authorization=f"Bearer {token}")
    return int(client("GET", f"/v2/{REPO}/manifests/v1").status)


def test_a_token_of_ours_is_accepted(registry: Served) -> None:
    kid, private, _ = key_of(registry)
    assert status(registry, jwt.encode(claims(), private, "EdDSA", {"kid": kid})) == 200


@pytest.mark.parametrize(
    "changed",
    [{"aud": "another-registry"}, {"aud": None}, {"iss": "another"}, {"iss": None}, {"exp": 1}, {"exp": None},
     {"exp": "soon"}, {"exp": float("inf")}, {"nbf": int(time.time()) + 3600}, {"nbf": None}, {"sub": None},
     {"access": None}, {"access": []}, {"access": "all"}, {"access": [{"type": "repository"}]}, {"access": [7]},
     {"access": [{"type": "repository", "name": REPO, "action": ["pull"]}]},
     {"access": [{"type": "repository", "name": "alice/other", "actions": ["pull"]}]},
     {"access": [{"type": "registry", "name": REPO, "actions": ["pull"]}]},
     {"access": [{"type": "repository", "name": REPO, "actions": "pull"}]},
     {"aud": ["dockyard-registry-2"]}],
    ids=str,
)  # fmt: skip
def test_a_token_for_something_else(registry: Served, changed: dict[str, Any]) -> None:
    kid, private, _ = key_of(registry)
    assert status(registry, jwt.encode(claims(**changed), private, "EdDSA", {"kid": kid})) == 401


def test_another_key_behind_every_header_that_could_bring_one(registry: Served) -> None:
    kid, _, _ = key_of(registry)
    mine = Ed25519PrivateKey.generate()
    raw = mine.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(raw).rstrip(b"=").decode()}
    for more in ({}, {"kid": kid}, {"jwk": jwk}, {"kid": kid, "jwk": jwk}, {"kid": "mine", "jwk": jwk},
                 {"kid": kid, "x5c": ["AAAA"]}, {"kid": kid, "jku": "http://127.0.0.1:1/keys"}, {"kid": "../../etc/passwd"},
                 {"kid": "' OR '1'='1"}, {"kid": ""}, {"kid": "x" * 5000}):  # fmt: skip
        assert status(registry, jwt.encode(claims(), mine, "EdDSA", more)) == 401, more


def test_another_algorithm(registry: Served) -> None:
    """The public key as an HMAC secret is the classic; "none" in any case is the other."""
    kid, _, public = key_of(registry)
    for algorithm, digest_name in (("HS256", "sha256"), ("HS512", "sha512")):
        body = f"{part({'alg': algorithm, 'typ': 'JWT', 'kid': kid})}.{part(claims())}"
        for secret in (public, public.strip(), b""):
            signature = base64.urlsafe_b64encode(hmac.new(secret, body.encode(), digest_name).digest()).rstrip(b"=")
            assert status(registry, f"{body}.{signature.decode()}") == 401
    for none in ("none", "None", "NONE", "nOnE", ""):
        assert status(registry, f"{part({'alg': none, 'kid': kid})}.{part(claims())}.") == 401


def test_a_changed_token(registry: Served) -> None:
    kid, private, _ = key_of(registry)
    token = jwt.encode(claims(access=[]), private, "EdDSA", {"kid": kid})
    head, _, signature = token.split(".")
    assert status(registry, f"{head}.{part(claims())}.{signature}") == 401
    for broken in (head, f"{head}.", f"{head}..", ".".join([head] * 5), "x", "a.b.c", token + "x", "€" * 10 + token[:50]):
        client = registry.client(authorization=f"Bearer {broken}".encode().decode("latin-1"))
        assert client("GET", f"/v2/{REPO}/manifests/v1").status == 401


def test_a_token_outlives_a_rotation_but_not_its_key(registry: Served) -> None:
    tokens = registry.registry.tokens
    token = registry.client("alice", PASSWORD).token(f"repository:{REPO}:pull").removeprefix("Bearer ")
    before = tokens.clock
    try:
        offset = 30.5 * 24 * 3600.0
        tokens.clock = lambda: before() + offset
        registry.run(tokens.load())
        assert len(tokens._keys) == 2, "a month later a new key signs, the old one still verifies"
        offset = 64 * 24 * 3600.0
        registry.run(tokens.load())
        assert key_of(registry)[0] not in jwt.get_unverified_header(token)["kid"]
        tokens.clock = before
        tokens._seen.clear()
        assert status(registry, token) == 401, "its key is gone from the database"
    finally:
        tokens.clock = before
        registry.run(tokens.load())


def test_secrets_rest_as_digests(registry: Served) -> None:
    alice = registry.client("alice", PASSWORD)
    secret = alice.api("POST", "accounts/alice/tokens", label="x", level="read")["token"]
    rows = registry.run(registry.registry.core.db.read(lambda tx: tx.all("SELECT * FROM secrets")))
    stored = repr(rows) + repr(registry.run(registry.registry.core.db.read(lambda tx: tx.all("SELECT * FROM accounts"))))
    assert secret not in stored
    assert sha256(secret.encode()).hexdigest() in stored
    assert PASSWORD not in stored
    assert "$argon2id$" in stored


def test_refresh_tokens_are_for_one_service(registry: Served) -> None:
    client = registry.client()
    form = {"grant_type": "password", "username": "alice", "password": PASSWORD, "service": "dockyard-registry",
            "client_id": "t", "access_type": "offline"}  # fmt: skip
    answer = client.http.request("POST", client.base + "/token", fields=form, encode_multipart=False)
    refresh = json.loads(answer.data)["refresh_token"]
    again = {"grant_type": "refresh_token", "refresh_token": refresh, "client_id": "t", "scope": f"repository:{REPO}:pull"}
    good = client.http.request("POST", client.base + "/token", fields=again | {"service": "dockyard-registry"}, encode_multipart=False)
    assert good.status == 200
    assert json.loads(good.data)["scope"] == f"repository:{REPO}:pull"
    for service in ("another", ""):
        bad = client.http.request("POST", client.base + "/token", fields=again | {"service": service}, encode_multipart=False)
        assert bad.status in {400, 401}
    assert registry.client("alice", refresh)("GET", "/v2/").status == 401, "it is no password"


def test_guessing_is_slowed(registry: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockyard.registry.accounts._FAILURES_MAX", 3)
    registry.client("alice", PASSWORD).api("POST", "accounts", name="victim", password=PASSWORD)
    statuses = [registry.client("victim", f"guess {n}")("GET", "/v2/").status for n in range(5)]
    assert statuses == [401] * 3 + [429] * 2
    assert registry.client("alice", PASSWORD)("GET", "/v2/").status == 200, "others are not held up"


# ---- names, digests, scopes, paths

TEXTS = st.text(max_size=80) | st.sampled_from([
    "..", "../..", "a/../b", "%2e%2e", "a//b", "/a", "a/", "A", "a" * 300, "_trust", "a/blobs/uploads", "a\x00b", "a b",
    "a\nb", "-", "a/-/b", "ä", "a%2fb", "manifests/x", "sha256:" + "0" * 64, "sha256:zz", "md5:" + "0" * 32, "a;b",
    "$(id)", "' OR 1=1 --", "<script>", "{repo}", "%00", "\u202e",
])  # fmt: skip


def sound(status: int) -> bool:
    """An answer of purpose: no fault of ours."""
    return status in {200, 202, 204, 206, 304, 400, 401, 403, 404, 405, 413, 416, 429}


@FUZZ
@given(name=TEXTS, reference=TEXTS, kind=st.sampled_from(["manifests", "blobs", "blobs/uploads", "referrers", "tags/list", "_trust/tuf"]),
       method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]), raw=st.booleans())  # fmt: skip
def test_paths(registry: Served, name: str, reference: str, kind: str, method: str, raw: bool) -> None:
    client = registry.client("alice", PASSWORD)
    spelled = [quote(text, safe="/:" if raw else "") for text in (name, reference)]
    answer = client(method, f"/v2/{spelled[0]}/{kind}/{spelled[1]}", b"{}" if method in {"PUT", "POST", "PATCH"} else None)
    assert sound(answer.status), (answer.status, answer.data)
    if answer.status >= 400 and method != "HEAD":
        error = json.loads(answer.data)["errors"][0]
        assert error["code"]
        assert "Traceback" not in error["message"]


@FUZZ
@given(scope=TEXTS, service=st.sampled_from(["", "dockyard-registry", "x"]), account=TEXTS)
def test_scopes(registry: Served, scope: str, service: str, account: str) -> None:
    client = registry.client("alice", PASSWORD)
    answer = client("GET", f"/token?scope={quote(scope)}&service={quote(service)}&account={quote(account)}")
    assert answer.status in {200, 400}
    if answer.status == 200:
        for access in jwt.decode(json.loads(answer.data)["token"], options={"verify_signature": False})["access"]:
            assert access["actions"]


@FUZZ
@given(st.text(max_size=200))
def test_scopes_survive_a_round(text: str) -> None:
    parsed = parse_scopes(text)
    written = format_scopes([{"type": k, "name": n, "actions": a} for k, n, a in parsed])
    assert parse_scopes(written) == [(k, n, a) for k, n, a in parsed]


@FUZZ
@given(st.text(max_size=300))
def test_names_and_digests_are_safe_in_paths(text: str) -> None:
    for check in (check_name, check_digest):
        try:
            check(text)
        except InvalidParameter:
            pass
        else:
            assert text.isascii()
            assert ".." not in text
            assert not set(text) & set(" \n\r\0\\%?#\"'<>")


@FUZZ
@given(st.text(max_size=60) | st.from_regex(r"bytes=[0-9,\-]{0,30}"), st.integers(0, 5000))
def test_ranges_stay_inside(header: str, size: int) -> None:
    try:
        found = parse_ranges(header, size)
    except InvalidParameter:
        pass
    else:
        assert all(0 <= begin < end <= size for begin, end in found or [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "digest", "size", "annotations", "urls",
         "platform", "artifactType"]), inner, max_size=6), max_leaves=20,
)  # fmt: skip


@FUZZ
@given(JSON | st.binary(max_size=100), st.text(max_size=40))
def test_manifests(document: Any, content_type: str) -> None:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    with contextlib.suppress(InvalidParameter):  # anything else that is raised fails the test
        parse_manifest(raw, content_type)


def test_manifests_over_the_wire(registry: Served) -> None:
    alice = registry.client("alice", PASSWORD)
    assert alice("POST", "/api/v0/accounts", b'{"a":' * 100_000 + b"1" + b"}" * 100_000).status == 400
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    for raw, expected in ((b"", 400), (b"null", 400), (b"[]", 400), (b"{", 400), (deep, 400), (b"\xff\xfe", 400),
                          (b" " * (4 * 1024 * 1024 + 1), 413), (b'{"schemaVersion":1}', 400)):  # fmt: skip
        answer = alice("PUT", f"/v2/{REPO}/manifests/bad", raw, Content_Type=MANIFEST)
        assert answer.status == expected, raw[:20]
        assert json.loads(answer.data)["errors"][0]["code"] == ("SIZE_INVALID" if expected == 413 else "MANIFEST_INVALID")
    assert alice("GET", f"/v2/{REPO}/manifests/bad").status == 404


def test_a_digest_that_lies(registry: Served) -> None:
    alice = registry.client("alice", PASSWORD)
    lie = digest(b"something else")
    for data in (b"small", b"x" * 100_000):
        place = alice("POST", f"/v2/{REPO}/blobs/uploads/").headers["location"]
        answer = alice("PUT", f"{place}?digest={lie}", data)
        assert (answer.status, json.loads(answer.data)["errors"][0]["code"]) == (400, "DIGEST_INVALID")
        answer = alice("POST", f"/v2/{REPO}/blobs/uploads/?digest={lie}", data)
        assert answer.status == 400
    assert alice("HEAD", f"/v2/{REPO}/blobs/{lie}").status == 404
    body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST}).encode()
    assert alice("PUT", f"/v2/{REPO}/manifests/{lie}", body, Content_Type=MANIFEST).status == 400


def test_an_upload_belongs_to_its_repository(registry: Served) -> None:
    alice = registry.client("alice", PASSWORD)
    place = alice("POST", "/v2/alice/other/blobs/uploads/").headers["location"]
    elsewhere = place.replace("alice/other", REPO)
    assert alice("PATCH", elsewhere, b"x").status == 404
    assert alice("PUT", f"{elsewhere}?digest={digest(b'')}").status == 404
    assert alice("DELETE", elsewhere).status == 404
    assert alice("DELETE", place).status == 204


@pytest.mark.parametrize(
    "wire",
    [b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Basic %%%\r\n\r\n",
     b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + b"A" * 60_000 + b"\r\n\r\n",
     b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n\r\n",
     b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: \r\n\r\n",
     b"GET /v2/ HTTP/1.1\r\nHost: x\"evil\r\nX-Forwarded-Proto: a\"b,c\r\n\r\n",
     b"GET /v2/%zz/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
     b"GET /v2/_catalog?n=%C2%B2 HTTP/1.1\r\nHost: x\r\n\r\n",
     b"GET /v1/search?q=%ff%fe&n=%C2%B2 HTTP/1.1\r\nHost: x\r\n\r\n",
     b"GET /token?scope=" + b"repository:a:pull%20" * 1000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
     b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n\xff\xfe\xfd",
     b"GET /nowhere/\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n"],
)  # fmt: skip
def test_odd_requests(registry: Served, wire: bytes) -> None:
    with socket.create_connection(("127.0.0.1", registry.port), timeout=20) as sock:
        sock.sendall(wire.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        answer = b""
        while data := sock.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 "), answer
    assert sound(int(answer[9:12])) or answer[9:12] in {b"414", b"431"}, answer
    assert b"Traceback" not in answer
    challenge = [line for line in answer.split(b"\r\n") if line.lower().startswith(b"www-authenticate")]
    assert all(line.count(b'"') % 2 == 0 and b"evil" not in line.partition(b"service=")[2] for line in challenge)


def test_tls_on_a_plain_port_is_refused_at_once(registry: Served) -> None:
    """docker tries https first; its fall back to http must not wait for a time limit."""
    with socket.create_connection(("127.0.0.1", registry.port), timeout=30) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)))
        assert sock.recv(12) == b"HTTP/1.1 400", "an answer, not a connection that is closed when its time is up"


def test_signing_keys_are_private(registry: Served) -> None:
    _, private, _ = key_of(registry)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    alice = registry.client("alice", PASSWORD)
    for path in ("settings", "audit", "jobs", "accounts"):
        assert pem.splitlines()[1] not in json.dumps(alice.api("GET", path)).encode()
