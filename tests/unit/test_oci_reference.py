"""References and digests: the table follows what distribution/reference documents."""

import pytest

from dockyard.errors import InvalidParameter
from dockyard.oci import chain_ids, parse_digest, parse_reference, sha256_of

SHA = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("alice/app:v1", "docker.io/alice/app:v1", "alice/app:v1"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app", "localhost:5000/app"),
        ("[::1]:5000/app:x", "[::1]:5000/app:x", "[::1]:5000/app:x"),
        ("Registry/app", "Registry/app", "Registry/app"),
        ("a__b/c-d---e.f_g", "docker.io/a__b/c-d---e.f_g", "a__b/c-d---e.f_g"),
        (f"app@{SHA}", f"docker.io/library/app@{SHA}", f"app@{SHA}"),
        (f"quay.io/x/app:v1@{SHA}", f"quay.io/x/app:v1@{SHA}", f"quay.io/x/app:v1@{SHA}"),
    ],
)
def test_normal_and_familiar_form(text: str, full: str, familiar: str) -> None:
    ref = parse_reference(text)
    assert str(ref) == full
    assert ref.familiar == familiar
    assert parse_reference(ref.familiar) == ref
    assert parse_reference(full) == ref


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("app@sha256:abc", "invalid reference format"),
        ("app@" + SHA.upper(), "invalid reference format"),
        ("a b", "invalid reference format"),
        ("app\n", "invalid reference format"),
        ("../etc", "invalid reference format"),
        ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
        ("x.io/A/b", "invalid reference format: repository name (A/b) must be lowercase"),
        ("a" * 64, "invalid repository name (" + "a" * 64 + "), cannot specify 64-byte hexadecimal strings"),
        ("x.io/" + "a" * 256, "repository name must not be more than 255 characters"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_reference(text)
    assert str(caught.value) == message


def test_default_tag_only_where_nothing_says_which() -> None:
    assert parse_reference("a").with_default_tag().tag == "latest"
    assert parse_reference(f"a@{SHA}").with_default_tag().tag is None
    assert parse_reference("a:x").with_default_tag().tag == "x"


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:", "sha256:" + "A" * 64, "sha256:" + "a" * 63, "md5:" + "a" * 32, SHA + "\n", SHA + "/"],
)
def test_digest_must_be_whole(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_digest(text)


def test_chain_ids_follow_the_specification() -> None:
    first, second = sha256_of(b"1"), sha256_of(b"2")
    assert chain_ids([]) == []
    assert chain_ids([first, second]) == [first, sha256_of(f"{first} {second}".encode())]
