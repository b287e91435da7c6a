"""The distribution specification, endpoint by endpoint, over a real socket: what the public suite checks, and 1.2-dev.

Runs on SQLite and files, with authentication off; access has its own tests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from dockyard.registry.core import Config
from dockyard.testing.registry_server import INDEX, MANIFEST, Client, digest, served


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with served(tmp_path_factory.mktemp("registry"), Config(auth="none")) as it:
        yield it.client()


def code(answer: Any) -> str:
    return str(json.loads(answer.data)["errors"][0]["code"])


def test_end_1(client: Client) -> None:
    assert client("GET", "/v2/").status == 200


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("size", [0, 100, 16 * 1024, 16 * 1024 + 1, 3_000_000])
def test_blob_by_post_put(client: Client, algorithm: str, size: int) -> None:
    data = os.urandom(size)
    d = client.blob("t/blobs", data, algorithm)
    got = client("GET", f"/v2/t/blobs/blobs/{d}")
    assert (got.status, got.data) == (200, data)
    assert got.headers["docker-content-digest"] == d
    head = client("HEAD", f"/v2/t/blobs/blobs/{d}")
    assert (head.status, head.headers["content-length"]) == (200, str(size))
    assert client("GET", f"/v2/t/blobs/blobs/{d}").data == data, "from the cache"
    assert client("HEAD", f"/v2/t/elsewhere/blobs/{d}").status == 404


@pytest.mark.parametrize("size", [50, 100_000])
def test_blob_by_single_post(client: Client, size: int) -> None:
    data = os.urandom(size)
    answer = client("POST", f"/v2/t/single/blobs/uploads/?digest={digest(data)}", data)
    assert answer.status == 201
    assert client("GET", answer.headers["location"]).data == data


@pytest.mark.parametrize("sizes", [(10, 20, 30), (10, 40_000, 5), (1_500_000, 1_500_000, 7)])
def test_blob_by_chunks(client: Client, sizes: tuple[int, ...]) -> None:
    place = client("POST", "/v2/t/chunks/blobs/uploads/").headers["location"]
    whole = b""
    for n, size in enumerate(sizes[:-1]):
        piece = os.urandom(size)
        end = len(whole) + size - 1
        headers = {"Content-Range": f"{len(whole)}-{end}"} if n % 2 == 0 else {}
        answer = client("PATCH", place, piece, **{k.replace("-", "_"): v for k, v in headers.items()})
        whole += piece
        assert (answer.status, answer.headers["range"]) == (202, f"0-{end}")
        late = client("PATCH", place, b"xx", Content_Range=f"{len(whole) + 5}-{len(whole) + 6}")
        assert late.status == 416
        status = client("GET", place)
        assert (status.status, status.headers["range"]) == (204, f"0-{end}")
    last = os.urandom(sizes[-1])
    wrong = client("PUT", f"{place}?digest={digest(whole + last)}", last, Content_Range="0-6")
    assert wrong.status == 416
    done = client("PUT", f"{place}?digest={digest(whole + last)}", last)
    assert done.status == 201
    assert client("GET", done.headers["location"]).data == whole + last
    assert client("GET", place).status == 404


def test_streamed_patch_without_length(client: Client) -> None:
    place = client("POST", "/v2/t/stream/blobs/uploads/").headers["location"]
    pieces = [os.urandom(70_000) for _ in range(20)]
    assert client("PATCH", place, iter(pieces)).status == 202
    data = b"".join(pieces)
    assert client("PUT", f"{place}?digest={digest(data)}").status == 201
    assert client("GET", f"/v2/t/stream/blobs/{digest(data)}").data == data


@pytest.mark.parametrize("size", [100, 50_000])
def test_a_digest_that_lies_is_refused(client: Client, size: int) -> None:
    place = client("POST", "/v2/t/lies/blobs/uploads/").headers["location"]
    answer = client("PUT", f"{place}?digest={digest(b'other')}", os.urandom(size))
    assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")
    assert client("HEAD", f"/v2/t/lies/blobs/{digest(b'other')}").status == 404
    assert client("DELETE", place).status == 204
    assert client("GET", place).status == 404


@pytest.mark.parametrize("bad", ["sha256:zz", "sha256:" + "A" * 64, "md5:" + "a" * 32, "sha512:" + "a" * 64])
def test_bad_digests(client: Client, bad: str) -> None:
    assert client("GET", f"/v2/t/x/blobs/{bad}").status == 400
    assert client("GET", f"/v2/t/x/manifests/{bad}").status == 400
    assert client("GET", f"/v2/t/x/referrers/{bad}").status == 400
    place = client("POST", "/v2/t/x/blobs/uploads/").headers["location"]
    assert client("PUT", f"{place}?digest={bad}", b"x").status == 400


@pytest.mark.parametrize("size", [2048, 40_000])
def test_ranges(client: Client, size: int) -> None:
    data = os.urandom(size)
    path = f"/v2/t/range/blobs/{client.blob('t/range', data)}"
    for text, begin, end in (("0-9", 0, 10), ("5-", 5, size), ("-7", size - 7, size), (f"9-{size * 9}", 9, size)):
        got = client("GET", path, Range=f"bytes={text}")
        assert (got.status, got.data) == (206, data[begin:end])
        assert got.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"
    for text in (f"{size * 2}-{size * 3}", "500-0"):
        assert client("GET", path, Range=f"bytes={text}").status == 416
    many = client("GET", path, Range="bytes=0-3,10-13")
    assert many.status == 206
    assert data[0:4] in many.data
    assert data[10:14] in many.data
    assert len(many.data) == int(many.headers["content-length"])
    assert client("GET", path, If_None_Match=f'"{digest(data)}"').status == 304


def test_mount(client: Client) -> None:
    d = client.blob("t/from", b"mounted")
    named = client("POST", f"/v2/t/to/blobs/uploads/?mount={d}&from=t/from")
    assert (named.status, named.headers["location"]) == (201, f"/v2/t/to/blobs/{d}")
    assert client("POST", f"/v2/t/to2/blobs/uploads/?mount={d}").status == 201
    assert client("GET", f"/v2/t/to/blobs/{d}").data == b"mounted"
    assert client("POST", f"/v2/t/to/blobs/uploads/?mount={digest(b'no')}&from=t/from").status == 202


def test_manifest_round_trip(client: Client) -> None:
    raw, d = client.manifest("t/man", "v1")
    for ref in ("v1", d):
        got = client("GET", f"/v2/t/man/manifests/{ref}")
        assert (got.status, got.data, got.headers["content-type"]) == (200, raw, MANIFEST)
        head = client("HEAD", f"/v2/t/man/manifests/{ref}")
        assert (head.headers["content-length"], head.headers["docker-content-digest"]) == (str(len(raw)), d)
    assert code(client("GET", "/v2/t/man/manifests/nope")) == "MANIFEST_UNKNOWN"
    assert code(client("GET", "/v2/t/none/manifests/nope")) == "NAME_UNKNOWN"
    second, _ = client.manifest("t/man", "v1")
    assert client("GET", "/v2/t/man/manifests/v1").data == second, "the cache sees the new tag"


def test_several_tags_in_one_put(client: Client) -> None:
    raw, d = client.manifest("t/multi", "")
    answer = client("PUT", f"/v2/t/multi/manifests/{d}?tag=a&tag=b", raw, Content_Type=MANIFEST)
    assert answer.status == 201
    assert answer.headers.getlist("oci-tag") == ["a", "b"]
    assert json.loads(client("GET", "/v2/t/multi/tags/list").data) == {"name": "t/multi", "tags": ["a", "b"]}


def test_manifest_refusals(client: Client) -> None:
    put = lambda body, kind=MANIFEST: client("PUT", "/v2/t/bad/manifests/x", body, Content_Type=kind)  # noqa: E731
    missing = json.dumps({"schemaVersion": 2, "config": {"digest": digest(b"no"), "size": 1, "mediaType": "a"},
                          "layers": []}).encode()  # fmt: skip
    answer = put(missing)
    assert (answer.status, code(answer)) == (404, "MANIFEST_BLOB_UNKNOWN")
    for body in (b"", b"{", b"[]", b"{}", b'{"schemaVersion":1}', b'{"schemaVersion":2,"layers":3}'):
        assert put(body).status == 400
    assert put(b'{"schemaVersion":2,"mediaType":"a/b"}', "c/d").status == 400
    assert put(b" " * (4 * 1024 * 1024 + 1)).status == 413
    assert client("PUT", "/v2/t/bad/manifests/-x", missing, Content_Type=MANIFEST).status == 400
    assert client("PUT", "/v2/t/BAD/manifests/x", missing, Content_Type=MANIFEST).status == 400
    raw, _ = client.manifest("t/bad", "ok")
    answer = client("PUT", f"/v2/t/bad/manifests/{digest(b'y')}", raw, Content_Type=MANIFEST)
    assert code(answer) == "DIGEST_INVALID"


def test_foreign_layers_and_sparse_indexes_are_accepted(client: Client) -> None:
    config = client.blob("t/foreign", b"{}")
    layer = {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": digest(b"far"),
             "size": 3, "urls": ["https://example.com/x"]}  # fmt: skip
    body = {"schemaVersion": 2, "config": {"mediaType": "x/y", "digest": config, "size": 2}, "layers": [layer]}
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    answer = client("PUT", "/v2/t/foreign/manifests/w", json.dumps(body).encode(), Content_Type=kind)
    assert answer.status == 201
    index = {"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST, "digest": digest(b"gone"), "size": 4}]}
    assert client("PUT", "/v2/t/foreign/manifests/i", json.dumps(index).encode(), Content_Type=INDEX).status == 201


def test_tags_are_paged(client: Client) -> None:
    raw, d = client.manifest("t/paged", "t0")
    tags = "&".join(f"tag=t{n}" for n in range(1, 7))
    client("PUT", f"/v2/t/paged/manifests/{d}?{tags}", raw, Content_Type=MANIFEST)
    path, seen = "/v2/t/paged/tags/list?n=3", []
    while path:
        answer = client("GET", path)
        seen.append(json.loads(answer.data)["tags"])
        link = answer.headers.get("link", "")
        path = link[1 : link.index(">")] if link else ""
    assert seen == [["t0", "t1", "t2"], ["t3", "t4", "t5"], ["t6"]]
    empty = client("GET", "/v2/t/paged/tags/list?n=0")
    assert (json.loads(empty.data)["tags"], "link" in empty.headers) == ([], False)
    assert client("GET", "/v2/t/nothing/tags/list").status == 404
    assert client("GET", "/v2/t/paged/tags/list?n=x").status == 400


def test_catalog_is_paged(client: Client) -> None:
    client.blob("t/cat1", b"1")
    client.blob("t/cat2", b"1")
    first = client("GET", "/v2/_catalog?n=1")
    assert len(json.loads(first.data)["repositories"]) == 1
    assert 'rel="next"' in first.headers["link"]
    assert {"t/cat1", "t/cat2"} <= set(json.loads(client("GET", "/v2/_catalog").data)["repositories"])


def test_referrers(client: Client) -> None:
    subject = {"mediaType": MANIFEST, "digest": digest(b"not yet"), "size": 7}
    empty = client("GET", f"/v2/t/ref/referrers/{subject['digest']}")
    assert (empty.status, empty.headers["content-type"]) == (200, INDEX)
    assert json.loads(empty.data)["manifests"] == []
    digests = set()
    for kind in ("a/one", "a/two"):
        raw = json.dumps({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "layers": [], "subject": subject,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": client.blob("t/ref", b"{}"),
                       "size": 2}, "annotations": {"k": kind},
        }).encode()  # fmt: skip
        answer = client("PUT", f"/v2/t/ref/manifests/{digest(raw)}", raw, Content_Type=MANIFEST)
        assert answer.headers["oci-subject"] == subject["digest"]
        digests.add(digest(raw))
    listed = json.loads(client("GET", f"/v2/t/ref/referrers/{subject['digest']}").data)["manifests"]
    assert {m["digest"] for m in listed} == digests
    assert {m["annotations"]["k"] for m in listed} == {"a/one", "a/two"}
    one = client("GET", f"/v2/t/ref/referrers/{subject['digest']}?artifactType=a/one")
    assert one.headers["oci-filters-applied"] == "artifactType"
    assert [m["artifactType"] for m in json.loads(one.data)["manifests"]] == ["a/one"]


def test_referrers_are_paged(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockyard.registry.content.REFERRERS_PAGE", 2)
    subject = {"mediaType": MANIFEST, "digest": digest(b"paged"), "size": 7}
    pushed = {client.manifest("t/pages", "", artifactType="a/b", subject=subject, annotations={"n": str(n)})[1] for n in range(5)}
    path, seen = f"/v2/t/pages/referrers/{subject['digest']}?artifactType=a/b", []
    while path:
        answer = client("GET", path)
        seen.append([m["digest"] for m in json.loads(answer.data)["manifests"]])
        link = answer.headers.get("link", "")
        assert not link or 'rel="next"' in link
        path = link[1 : link.index(">")] if link else ""
    assert [len(page) for page in seen] == [2, 2, 1]
    assert {d for page in seen for d in page} == pushed


def test_referrers_that_old_clients_listed_under_a_tag(client: Client) -> None:
    """Spec "Referrers Tag Schema": they are folded in, once each."""
    raw, d = client.manifest("t/old", "v1")
    listed, one = client.manifest("t/old", "", artifactType="a/one")
    both, two = client.manifest("t/old", "", artifactType="a/two", subject={"mediaType": MANIFEST, "digest": d, "size": len(raw)})
    children = [{"mediaType": MANIFEST, "digest": it, "size": len(data)} for data, it in ((listed, one), (both, two))]
    client.put_manifest("t/old", d.replace(":", "-"), {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}, INDEX)
    found = json.loads(client("GET", f"/v2/t/old/referrers/{d}").data)["manifests"]
    assert sorted(m["digest"] for m in found) == sorted([one, two])
    narrowed = json.loads(client("GET", f"/v2/t/old/referrers/{d}?artifactType=a/one").data)["manifests"]
    assert [m["digest"] for m in narrowed] == [one]


def test_a_manifest_keeps_its_type_and_bytes(client: Client) -> None:
    """Docker's and OCI's, pushed under any accepted type, served as pushed whatever Accept says."""
    config = client.blob("t/types", b"{}")
    for kind in (MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"):
        body = {"schemaVersion": 2, "mediaType": kind, "config": {"mediaType": "x/y", "digest": config, "size": 2}, "layers": []}
        raw = json.dumps(body, indent=3).encode() + b"\n"
        assert client("PUT", "/v2/t/types/manifests/t", raw, Content_Type=kind).status == 201
        for accept in (kind, "*/*", f"{kind}, */*", INDEX):
            got = client("GET", "/v2/t/types/manifests/t", Accept=accept)
            assert (got.status, got.data, got.headers["content-type"]) == (200, raw, kind)


def test_docker_s_own_words(client: Client) -> None:
    """What dockerd parses beside the specification: upload ids, ranges, the version of the API."""
    begun = client("POST", "/v2/t/words/blobs/uploads/")
    assert begun.headers["docker-distribution-api-version"] == "registry/2.0"
    assert begun.headers["docker-upload-uuid"] in begun.headers["location"]
    sent = client("PATCH", begun.headers["location"], b"12345")
    assert (sent.headers["range"], sent.headers["docker-upload-uuid"]) == ("0-4", begun.headers["docker-upload-uuid"])


def test_deletion(client: Client) -> None:
    _, d = client.manifest("t/del", "v1")
    raw, e = client.manifest("t/del", "v2")
    assert client("DELETE", "/v2/t/del/manifests/v2").status == 202
    assert client("GET", "/v2/t/del/manifests/v2").status == 404
    assert client("GET", f"/v2/t/del/manifests/{e}").data == raw
    assert client("GET", "/v2/t/del/manifests/v1").status == 200
    assert client("DELETE", f"/v2/t/del/manifests/{d}").status == 202
    assert client("GET", "/v2/t/del/manifests/v1").status == 404, "the cache forgets"
    assert client("DELETE", f"/v2/t/del/manifests/{d}").status == 404
    layer = json.loads(raw)["layers"][0]["digest"]
    assert client("GET", f"/v2/t/del/blobs/{layer}").status == 200
    assert client("DELETE", f"/v2/t/del/blobs/{layer}").status == 202
    assert client("GET", f"/v2/t/del/blobs/{layer}").status == 404
    assert client("DELETE", f"/v2/t/del/blobs/{layer}").status == 404


def test_methods_and_paths_that_are_not(client: Client) -> None:
    assert client("POST", "/v2/t/x/manifests/a", b"").status == 405
    assert client("GET", "/v2/nothing").status == 400
    assert client("GET", "/v1/_ping").status == 200
    assert client("GET", "/health").status == 200
    assert b"dockyard_registry_blobs" in client("GET", "/metrics").data
