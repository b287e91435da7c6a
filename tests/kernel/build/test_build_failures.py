"""Builds that fail: the right status or the right sentence, and nothing left behind."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.client import Client
from dockyard.errors import Conflict, DockyardError, InvalidParameter, NotFound
from dockyard.testing.engines import PrivateEngine

from .conftest import BuildClient, context

pytestmark = pytest.mark.root


def leftovers(engine: PrivateEngine) -> dict[str, list[str]]:
    mounts = Path(f"/proc/{engine.process.pid}/mountinfo").read_text().splitlines()
    base = f"{engine.root}/data"
    inside = subprocess.run(engine.inside("ip", "-br", "link"), capture_output=True, text=True, check=True).stdout
    return {
        "mounts": [
            place for place in (row.split()[4] for row in mounts)
            if place.startswith(str(engine.root)) and ("/snapshots/" in place or "/build/run/" in place)
        ],
        "runs": [p.name for p in Path(base, "build/run").glob("*")],
        "spool": [p.name for p in Path(base, "build/spool").glob("*")],
        "fetch": [p.name for p in Path(base, "build/fetch").glob("*")],
        "links": [row for row in inside.splitlines() if row.startswith("veth")],
        "state": [p.name for p in Path(engine.root, "run/build").glob("*")],
    }


@pytest.fixture(autouse=True)
def nothing_is_left(engine: PrivateEngine) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 15
    while any(leftovers(engine).values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(leftovers(engine).values()), leftovers(engine)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("FROM busybox\nRNU x\n", r"dockerfile parse error on line 2: unknown instruction: RNU \(did you mean RUN\?\)"),
        ("FROM busybox\nCOPY a\n", "COPY requires at least two arguments"),
        ("FROM busybox\nRUN --mont=x y\n", r"unknown flag: --mont \(did you mean --mount\?\)"),
        ("RUN x\n", "no build stage"),
        ("FROM busybox AS 1x\n", "invalid name for build stage"),
        ("FROM busybox AS x\nCOPY --from=later / /\nFROM busybox AS later\nCOPY --from=x / /\n", "circular|not defined"),
        ("FROM busybox AS a\nCOPY --from=b / /\nFROM a AS b\nFROM b\n", "circular|not defined"),
        ("FROM a AS a\nFROM a AS b\nFROM b AS a\nCOPY --from=a / /\n", "circular|not defined|current build stage|not found|cannot fetch"),
        ("FROM busybox\nONBUILD ONBUILD RUN true\n", "ONBUILD"),
        ("", "no instructions|empty"),
    ],
)
def test_bad_dockerfiles_have_a_status_and_a_line(builder: BuildClient, text: str, sentence: str) -> None:
    with pytest.raises(InvalidParameter, match=sentence):
        _build_strictly(builder, text)


def _build_strictly(builder: BuildClient, text: str) -> None:
    """An error in the stream is as good: what needs a base image first is found later."""
    if error := builder.build(text).error:
        raise InvalidParameter(error)


def test_a_parse_error_shows_file_line_and_column(builder: BuildClient) -> None:
    with pytest.raises(InvalidParameter) as raised:
        builder.build("FROM busybox\n\nRUN --network a\n")
    lines = str(raised.value).splitlines()
    assert lines[1] == "Dockerfile:3:5"
    assert lines[2] == "    3 | RUN --network a"
    assert lines[3] == "      |     ^^^^^^^^^"


@pytest.mark.parametrize(
    ("query", "kind", "sentence"),
    [
        ({"dockerfile": "Missing"}, NotFound, "Cannot locate specified Dockerfile: Missing"),
        ({"dockerfile": "../../etc/passwd"}, NotFound, "Cannot locate specified Dockerfile"),
        ({"t": "a/UPPER"}, InvalidParameter, "must be lowercase"),
        ({"platform": "foobar/baz"}, InvalidParameter, "unknown operating system or architecture"),
        ({"buildargs": "{"}, InvalidParameter, "error reading build args"),
        ({"memory": "lots"}, InvalidParameter, "invalid syntax"),
        ({"memory": "4096"}, InvalidParameter, "Minimum memory limit allowed is 6MB"),
        ({"memory": "8388608", "memswap": "7340032"}, InvalidParameter, "memoryswap limit should be larger"),
        ({"memswap": "8388608"}, InvalidParameter, "always set the Memory limit"),
        ({"isolation": "hyperv"}, InvalidParameter, "Unsupported isolation"),
        ({"target": "nowhere"}, InvalidParameter, "failed to reach build target nowhere"),
        ({"remote": "ftp://x"}, InvalidParameter, "neither a URL nor a git repository"),
    ],
)
def test_bad_queries(builder: BuildClient, query: dict[str, str], kind: type[DockyardError], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        builder.build("FROM busybox\n", **query)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("FROM busybox\nRUN exit 7\n", "The command '/bin/sh -c exit 7' returned a non-zero code: 7"),
        ("FROM busybox\nCOPY missing /x\n", "COPY failed: file not found in build context"),
        ("FROM busybox\nCOPY --from=busybox /missing /x\n", "missing"),
        ('FROM busybox\nRUN ["/missing"]\n', "cannot run step /missing"),
        ("FROM busybox\nUSER nobody-here\nRUN true\n", "unable to find user nobody-here"),
        ("FROM busybox\nCOPY --chown=nobody-here a /a\n", "unable to find user nobody-here"),
        ("FROM busybox\nRUN mkdir /a\nCOPY a /a/a/\nCOPY a /a/a/a/b\n", "not a directory"),
        ("FROM busybox\nRUN mkdir -p /t/a\nCOPY a /t/\n", "cannot copy a to /t/a"),
        ("FROM busybox\nRUN --network=nowhere true\n", "network nowhere not found"),
        ("FROM busybox\nRUN --security=insecure true\n", "security.insecure is not allowed"),
        ("FROM busybox\nRUN --mount=type=secret,id=s,required cat /run/secrets/s\n", "secret s: not found"),
        ("FROM busybox\nRUN --mount=from=busybox,source=/nowhere,target=/m true\n", "nowhere"),
        ("FROM nosuch.invalid/image\n", "nosuch.invalid"),
    ],
)
def test_failures_are_told_in_the_stream(builder: BuildClient, text: str, sentence: str) -> None:
    built = builder.build(text, {"a": "a"}, nocache="1")
    assert sentence in built.error, built.messages[-1]


def test_one_failing_stage_ends_the_others(builder: BuildClient) -> None:
    text = "FROM busybox AS slow\nRUN sleep 1013\nFROM busybox\nRUN exit 3\nCOPY --from=slow /x /x\n"
    assert "returned a non-zero code: 3" in builder.build(text).error
    assert not _sleeping("1013"), "told when everything has ended"


def test_cancel_by_id(builder: BuildClient) -> None:
    results = []
    thread = threading.Thread(
        target=lambda: results.append(builder.build("FROM busybox\nRUN echo waiting; sleep 101\n", buildid="stop-me"))
    )
    thread.start()
    with Client(builder.engine.host, timeout=30) as other:
        deadline = time.monotonic() + 20
        while not _sleeping("101") and time.monotonic() < deadline:
            time.sleep(0.05)
        other.request("POST", "/build/cancel", {"id": "stop-me"})
        thread.join(20)
        assert results[0].error == "build cancelled"
        with pytest.raises(NotFound, match="no such build"):
            other.request("POST", "/build/cancel", {"id": "stop-me"})
    assert not _sleeping("101")


def test_a_client_that_leaves_ends_its_build(builder: BuildClient) -> None:
    with Client(builder.engine.host, timeout=30) as other:
        body = context({"Dockerfile": "FROM busybox\nRUN sleep 102\n"})
        with other.open("POST", "/build", {}, body, headers={"Content-Type": "application/x-tar"}):
            deadline = time.monotonic() + 20
            while not _sleeping("102") and time.monotonic() < deadline:
                time.sleep(0.05)
            assert _sleeping("102")
    deadline = time.monotonic() + 20
    while _sleeping("102") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _sleeping("102")


def _sleeping(seconds: str) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"sleep", seconds.encode()]:
                return True
    return False


def raw_tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


DOCKERFILE = (member("Dockerfile"), b"FROM busybox\nCOPY . /ctx/\n")


@pytest.mark.parametrize(
    "body",
    [
        raw_tar(DOCKERFILE, (member("../../etc/evil"), b"x")),
        raw_tar(DOCKERFILE, (member("a/../../evil"), b"x")),
        raw_tar(DOCKERFILE, (member("hard", tarfile.LNKTYPE, "/etc/passwd"), b"")),
        raw_tar(DOCKERFILE)[:530],
        b"this is no tar at all" * 100,
        gzip.compress(raw_tar(DOCKERFILE))[:80],
        b"\x1f\x8b\x08\x00garbage",
    ],
)
def test_hostile_contexts_are_refused(builder: BuildClient, body: bytes) -> None:
    with pytest.raises(InvalidParameter, match="cannot read build context"):
        builder.send(body)


def test_links_of_a_context_lead_nowhere(builder: BuildClient) -> None:
    text = "FROM busybox\nCOPY l/passwd /p\n"
    assert "not found in build context" in builder.build(text, {"l": ("link", "/etc")}).error
    with pytest.raises(NotFound):
        builder.send(raw_tar((member("Dockerfile", tarfile.SYMTYPE, "/etc/passwd"), b"")))
    with pytest.raises((NotFound, InvalidParameter)):
        builder.send(raw_tar((member("Dockerfile", tarfile.SYMTYPE, "Dockerfile"), b"")))


def test_a_whiteout_in_a_context_deletes_nothing(builder: BuildClient) -> None:
    text = "FROM busybox\nRUN touch /t\nCOPY . /\n"
    assert "reserved for whiteouts" in builder.build(text, {".wh.t": ""}).error


def test_a_huge_dockerfile_is_refused(builder: BuildClient) -> None:
    with pytest.raises(DockyardError, match="over the limit"):
        builder.build("# x\n" * (25 << 20) + "FROM busybox\n")


def test_much_output_is_bounded(builder: BuildClient) -> None:
    built = builder.build("FROM busybox\nRUN yes 0123456789 | head -c 30000000\n")
    assert built.image
    assert len(built.text) < 40_000_000


def test_a_tag_conflict_of_kinds_leaves_the_old_image(builder: BuildClient) -> None:
    first = builder.build("FROM busybox\nRUN echo one > /one\n", t="moving").image
    second = builder.build("FROM busybox\nRUN echo two > /two\n", t="moving").image
    assert builder.inspect("moving")["Id"] == second
    assert builder.inspect(first)["RepoTags"] == []
    with pytest.raises((Conflict, NotFound, InvalidParameter)):
        builder.build("FROM busybox\n", t="moving@sha256:" + "0" * 64)
