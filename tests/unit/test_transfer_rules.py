"""The pure rules of the transfer room: endpoints, challenges, refusals, platforms, manifests."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from dockyard.api.failure import status_of
from dockyard.errors import DockyardError, InvalidParameter, NotFound
from dockyard.oci import parse_reference, sha256_of
from dockyard.transfer import Proxies, Settings, decode_auth
from dockyard.transfer.answers import error_for, own_name
from dockyard.transfer.challenge import missing_actions, parse_challenges
from dockyard.transfer.lookup import login_domain, split_term
from dockyard.transfer.manifests import (
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    ImageIndex,
    ImageManifest,
    choose,
    parse_config,
    parse_manifest,
    parse_platform,
    platforms_of,
    sniff_media_type,
    write_manifest,
)
from dockyard.transfer.model import Context, RawManifest
from dockyard.transfer.repository import next_page, regroup
from dockyard.transfer.session import granted_actions
from dockyard.transfer.settings import endpoints_for, is_insecure

DIGEST = "sha256:" + "ab" * 32
DENIED = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'


# -- endpoints -------------------------------------------------------------------------------------------------------


def test_mirrors_come_first_and_only_for_pulls() -> None:
    settings = Settings(mirrors={"ghcr.io": ("https://mirror.corp/", "http://10.0.0.9:5000")})
    assert [e.base for e in endpoints_for(settings, "ghcr.io")] == [
        "https://mirror.corp", "http://10.0.0.9:5000", "https://ghcr.io",
    ]  # fmt: skip
    assert [e.mirror for e in endpoints_for(settings, "ghcr.io")] == [True, True, False]
    assert [e.base for e in endpoints_for(settings, "ghcr.io", push=True)] == ["https://ghcr.io"]
    assert [e.base for e in endpoints_for(settings, "quay.io")] == ["https://quay.io"]


def test_the_default_registry_stands_in_for_docker_hub_only() -> None:
    assert [e.base for e in endpoints_for(Settings(), "docker.io")] == ["https://registry-1.docker.io"]
    settings = Settings(default_registry="registry.corp:5000")
    assert [e.base for e in endpoints_for(settings, "docker.io", push=True)] == ["https://registry.corp:5000"]
    assert [e.base for e in endpoints_for(settings, "quay.io")] == ["https://quay.io"]


@pytest.mark.parametrize(
    ("host", "rules", "insecure"),
    [
        ("127.0.0.1:5000", (), True),
        ("127.9.0.1", (), True),
        ("localhost:5000", (), True),
        ("[::1]:5000", (), True),
        ("10.1.2.3:5000", (), False),
        ("10.1.2.3:5000", ("10.0.0.0/8",), True),
        ("registry.corp:5000", ("registry.corp:5000",), True),
        ("registry.corp:5001", ("registry.corp:5000",), False),
        ("registry.corp", ("10.0.0.0/8",), False),
    ],
)
def test_which_registries_may_be_without_tls(host: str, rules: tuple[str, ...], insecure: bool) -> None:
    assert is_insecure(Settings(insecure_registries=rules), host) is insecure


@pytest.mark.parametrize(
    ("host", "no_proxy", "proxied"),
    [
        ("ghcr.io", "", True),
        ("127.0.0.1", "", False),
        ("localhost", "", False),
        ("a.corp", "corp", False),
        ("corp", "corp", False),
        ("corp", ".corp", True),
        ("a.corp", "*.corp", False),
        ("a.corp", "a.corp:8080", True),
        ("a.corp", "a.corp:443", False),
        ("10.2.3.4", "10.0.0.0/8", False),
        ("ghcr.io", "*", False),
    ],
)
def test_no_proxy_as_go_reads_it(host: str, no_proxy: str, proxied: bool) -> None:
    proxies = Proxies(https="http://proxy:3128", no_proxy=no_proxy)
    assert bool(proxies.for_url("https", host, 443)) is proxied
    assert proxies.for_url("http", host, 443) == ""


# -- authentication --------------------------------------------------------------------------------------------------


def test_challenges_are_read_with_quotes_commas_and_several_schemes() -> None:
    found = parse_challenges(
        ['Bearer realm="https://a/t",service="reg, one",scope="repository:a/b:pull,push", Basic realm=x']
    )
    assert [c.scheme for c in found] == ["bearer", "basic"]
    assert found[0].parameters == {"realm": "https://a/t", "service": "reg, one", "scope": "repository:a/b:pull,push"}
    assert found[1].parameters == {"realm": "x"}
    assert parse_challenges(["", '"garbage'])[0:] == []


def test_missing_actions_are_read_from_the_token() -> None:
    claims = {"access": [{"type": "repository", "name": "a/b", "actions": ["pull"]}]}
    token = "h." + base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=") + ".s"
    granted = granted_actions(token, "a/b")
    assert granted == ["pull"]
    assert missing_actions("repository:a/b:pull,push", granted) == ["push"]
    assert granted_actions("opaque", "a/b") is None


def test_the_auth_header_is_base64url_and_bad_ones_count_as_none() -> None:
    header = base64.urlsafe_b64encode(b'{"username":"\xc3\xbc?>","password":"p"}').decode()
    assert decode_auth(header).username == "ü?>"
    assert decode_auth(header.rstrip("=")).password == "p"
    packed = base64.urlsafe_b64encode(b'{"auth":"' + base64.b64encode(b"bob:pa:ss") + b'"}').decode()
    assert (decode_auth(packed).username, decode_auth(packed).password) == ("bob", "pa:ss")
    for bad in ("", "%%%", "bm90IGpzb24=", None):
        assert decode_auth(bad).is_anonymous
    assert "p" not in repr(decode_auth(header)).replace("password", "").replace("hidden", "").split("serveraddress")[1]


@pytest.mark.parametrize(
    ("address", "domain"),
    [("", "docker.io"), ("https://index.docker.io/v1/", "docker.io"), ("r.corp:5000", "r.corp:5000"),
     ("http://127.0.0.1:5000/v2/", "127.0.0.1:5000")],
)  # fmt: skip
def test_login_addresses(address: str, domain: str) -> None:
    assert login_domain(address) == domain


def test_search_terms() -> None:
    assert split_term("library/nginx") == ("docker.io", "nginx")
    assert split_term("localhost:5000/team/app") == ("localhost:5000", "team/app")
    assert split_term("team/app") == ("docker.io", "team/app")


# -- refusals --------------------------------------------------------------------------------------------------------

PULL = Context("pull", "team/app:1", "team/app", "team/app", "registry-1.docker.io", "alice")
PUSH = Context("push", "team/app:1", "team/app", "team/app", "registry-1.docker.io", "alice")


def refusal(status: int, body: bytes, context: Context, **headers: str) -> DockyardError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_for(status, named, body, 'Get "https://h/v2/team/app/manifests/1"', context)


def test_pull_denied_is_dockers_sentence_and_not_found() -> None:
    error = refusal(401, DENIED, PULL)
    assert isinstance(error, NotFound)
    assert str(error) == (
        "pull access denied for team/app, repository does not exist or may require 'docker login': "
        "denied: requested access to the resource is denied"
    )


def test_manifest_unknown_with_and_without_a_body() -> None:
    for body in (b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}', b"", b"<html>"):
        assert str(refusal(404, body, PULL)) == (
            "manifest for team/app:1 not found: manifest unknown: manifest unknown"
        )


def test_a_refused_push_names_the_account_and_its_namespace() -> None:
    error = refusal(403, DENIED, PUSH)
    assert str(error).startswith("denied: requested access to the resource is denied")
    assert "logged in as alice, and team/ is not that account's namespace" in str(error)
    assert error.hint == "docker tag team/app:1 alice/app:1"
    anonymous = refusal(401, DENIED, Context("push", "team/app:1", "team/app", "team/app", "r.corp"))
    assert "not logged in to r.corp" in str(anonymous)


def test_a_refused_push_names_the_missing_action() -> None:
    context = Context("push", "r.corp/alice/app", "r.corp/alice/app", "alice/app", "r.corp", "alice", ("push",))
    body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
    assert str(refusal(401, body, context)) == (
        "unauthorized: authentication required (the token for alice/app lacks: push)"
    )
    assert own_name(context) == ""


def test_rate_limits_are_told() -> None:
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}'
    error = refusal(429, body, PULL, RateLimit_Limit="100;w=21600", RateLimit_Remaining="0;w=21600", Retry_After="60")
    assert str(error) == (
        "toomanyrequests: You have reached your pull rate limit. "
        "(limit 100;w=21600, remaining 0;w=21600, retry after 60)"
    )


def test_other_statuses_say_what_came() -> None:
    assert "received unexpected HTTP status: 503: down for repair" in str(refusal(503, b"down for repair\nmore", PULL))


# -- platforms and manifests -----------------------------------------------------------------------------------------


def index(*platforms: dict[str, str] | None, attestation: bool = False) -> ImageIndex:
    entries = [
        {"mediaType": OCI_MANIFEST, "size": 1, "digest": sha256_of(str(n).encode())}
        | ({"platform": platform} if platform else {})
        for n, platform in enumerate(platforms)
    ]
    if attestation:
        entries.append(
            {"mediaType": OCI_MANIFEST, "size": 1, "digest": DIGEST,
             "platform": {"os": "unknown", "architecture": "unknown"},
             "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
        )  # fmt: skip
    raw = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    document = parse_manifest(RawManifest(OCI_INDEX, sha256_of(raw), raw), "x:1")
    assert isinstance(document, ImageIndex)
    return document


ARM5 = {"os": "linux", "architecture": "arm", "variant": "v5"}
ARM7 = {"os": "linux", "architecture": "arm", "variant": "v7"}
ARM64 = {"os": "linux", "architecture": "arm64", "variant": "v8"}
AMD64 = {"os": "linux", "architecture": "amd64"}


@pytest.mark.parametrize(
    ("wanted", "offers", "chosen"),
    [
        ("linux/amd64", [ARM64, AMD64], 1),
        ("linux/x86_64", [ARM64, AMD64], 1),
        ("amd64", [ARM64, AMD64], 1),
        ("linux/arm64", [AMD64, ARM64], 1),
        ("linux/arm64", [AMD64, {"os": "linux", "architecture": "arm64"}], 1),
        ("linux/arm/v7", [ARM5, ARM7], 1),
        ("linux/arm/v6", [ARM7, ARM5], 1),
        ("linux/amd64", [None], 0),
    ],
)
def test_choice_of_platform(wanted: str, offers: list[dict[str, str] | None], chosen: int) -> None:
    document = index(*offers, attestation=True)
    assert choose(document, parse_platform(wanted)) == document.manifests[chosen]


def test_no_platform_says_what_there_is() -> None:
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries") as caught:
        choose(index(ARM64, AMD64, attestation=True), parse_platform("linux/s390x"))
    assert caught.value.hint == "the image is published for linux/arm64/v8, linux/amd64"


def test_attestations_are_not_platforms() -> None:
    assert platforms_of(index(AMD64, attestation=True)) == [{"architecture": "amd64", "os": "linux"}]


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 1},
        {"schemaVersion": 2},
        {"schemaVersion": 2, "config": {"digest": "sha256:12", "size": 1}, "layers": []},
        {"schemaVersion": 2, "config": {"digest": DIGEST, "size": -1}, "layers": []},
        {"schemaVersion": 2, "config": {"digest": DIGEST + "/../../x", "size": 1}, "layers": []},
        {"schemaVersion": 2, "config": [], "layers": {}},
        {"schemaVersion": 2, "config": {"digest": DIGEST, "size": 1}, "layers": [{"digest": DIGEST}] * 1001},
        [],
    ],
)
def test_malformed_manifests_are_refused(document: object) -> None:
    raw = json.dumps(document).encode()
    with pytest.raises(InvalidParameter):
        parse_manifest(RawManifest(DOCKER_MANIFEST, sha256_of(raw), raw), "x:1")


def test_config_must_have_a_diff_id_for_each_layer() -> None:
    raw = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [DIGEST]}}).encode()
    assert parse_config(raw, 1, "x").rootfs.diff_ids == (DIGEST,)
    with pytest.raises(InvalidParameter, match="names 1 layers, the manifest 2"):
        parse_config(raw, 2, "x")


def test_media_types_come_from_the_document_then_the_header_then_the_shape() -> None:
    assert sniff_media_type(b'{"mediaType":"%s"}' % DOCKER_MANIFEST.encode(), OCI_INDEX) == DOCKER_MANIFEST
    assert sniff_media_type(b"{}", f"{DOCKER_MANIFEST}; charset=utf-8") == DOCKER_MANIFEST
    assert sniff_media_type(b'{"manifests":[]}', "text/plain") == OCI_INDEX


def test_written_manifests_are_docker_or_oci_as_a_whole() -> None:
    config = Descriptor("", 7, sha256_of(b"config"))
    gzip = Descriptor(DOCKER_LAYER, 5, sha256_of(b"layer"))
    zstd = Descriptor("application/vnd.oci.image.layer.v1.tar+zstd", 5, sha256_of(b"other"))
    written = write_manifest(config, [gzip])
    assert written.media_type == DOCKER_MANIFEST
    assert written.digest == sha256_of(written.raw)
    mixed = parse_manifest(write_manifest(config, [gzip, zstd]), "x")
    assert isinstance(mixed, ImageManifest)
    assert [layer.media_type for layer in mixed.layers] == [
        "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd",
    ]  # fmt: skip


def test_small_helpers() -> None:
    assert next_page('</v2/x/tags/list?last=b&n=2>; rel="next"') == "/v2/x/tags/list?last=b&n=2"
    assert next_page("") == ""
    assert list(regroup([b"abc", b"de", b"", b"fghij"], 4)) == [b"abcd", b"efgh", b"ij"]
    assert parse_reference("x").with_default_tag().tag == "latest"


def test_the_certificate_directory_names_what_is_missing(tmp_path: Path) -> None:
    from dockyard.transfer.settings import Endpoint
    from dockyard.transfer.transport import tls_context

    folder = tmp_path / "r.corp:5000"
    folder.mkdir()
    (folder / "client.cert").write_text("x")
    with pytest.raises(InvalidParameter, match=r"missing key client.key for client certificate client.cert"):
        tls_context(Endpoint("r.corp:5000", "https://r.corp:5000"), [tmp_path])


@pytest.mark.parametrize(
    ("status", "body", "ours"),
    [(401, DENIED, 404), (403, DENIED, 404), (401, b"", 500), (404, b"", 404), (429, b"", 429), (500, b"", 503)],
)
def test_a_registry_s_status_is_not_ours(status: int, body: bytes, ours: int) -> None:
    """A 401 of ours would make docker ask for a name and a password on the terminal."""
    assert status_of(refusal(status, body, PULL)) == ours
