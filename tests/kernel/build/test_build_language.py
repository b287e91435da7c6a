"""The language through POST /build on a real engine. Each Dockerfile checks itself: a RUN that fails fails the build."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from dockyard.errors import InvalidParameter

from .conftest import BuildClient, Files, context

pytestmark = pytest.mark.root


def tarball(*names: str) -> bytes:
    return context({name: f"content of {name}" for name in names})


CASES: dict[str, tuple[str, Files]] = {
    "env and arg": (
        "ARG G=global\nFROM busybox\nARG G\nARG L=local\nENV E=$G-$L\nRUN test $E = global-local && test $L = local\n",
        {},
    ),
    "workdir is made and kept": (
        "FROM busybox\nWORKDIR /a/b\nWORKDIR c\nRUN test $(pwd) = /a/b/c && test $(stat -c %u:%g:%a .) = 0:0:755\n",
        {},
    ),
    "user by name and number": (
        "FROM busybox\nUSER nobody\nRUN test $(id -u) = 65534 && test $HOME = /\nUSER 5:6\nRUN test $(id -u):$(id -g) = 5:6\n",
        {},
    ),
    "copy files and directories": (
        "FROM busybox\nCOPY a.txt d /t/\nCOPY d /u\nCOPY a.txt /v\nCOPY *.txt /w/\n"
        "RUN cat /t/a.txt /t/x /t/sub/y /u/sub/y /v /w/a.txt /w/b.txt && test ! -e /t/d\n",
        {"a.txt": "a", "b.txt": "b", "d/": "", "d/x": "x", "d/sub/y": "y"},
    ),
    "copy into a linked directory": (
        "FROM busybox\nRUN mkdir /real && ln -s /real /link\nCOPY a /link/\nRUN test -f /real/a && test -L /link\n",
        {"a": "a"},
    ),
    "copy chown chmod": (
        "FROM busybox\nCOPY --chown=nobody:nogroup --chmod=640 a /a\nCOPY --chmod=u=rwx,go=rx a /b\nCOPY --chown=7 a /c\n"
        "RUN test $(stat -c %u:%g:%a /a) = 65534:65534:640 && test $(stat -c %u:%a /b) = 0:755 && test $(stat -c %u:%g /c) = 7:7\n",
        {"a": "a"},
    ),
    "copy from a stage keeps owners": (
        "FROM busybox AS one\nRUN mkdir /d && echo 1 > /d/f && chown 5:6 /d/f\nFROM busybox\nCOPY --from=one /d /e\n"
        "COPY --from=0 /d/f /g\nRUN test $(stat -c %u:%g /e/f) = 5:6 && test $(cat /g) = 1\n",
        {},
    ),
    "copy from an image": ("FROM busybox\nCOPY --from=alpine:3.10 /etc/os-release /x\nRUN grep 3.10.9 /x\n", {}),
    "copy link": (
        "FROM busybox\nRUN mkdir -p /real && ln -s /real /l\nCOPY --link a /deep/down/a\nRUN test $(cat /deep/down/a) = a\n",
        {"a": "a"},
    ),
    "copy parents": (
        "FROM busybox\nCOPY --parents d/sub/y d/./sub/y /p/\nRUN cat /p/d/sub/y /p/sub/y\n",
        {"d/sub/y": "y"},
    ),
    "copy exclude": (
        "FROM busybox\nCOPY --exclude=*.md --exclude=sub . /p/\nRUN test -f /p/a.txt && test ! -e /p/a.md && test ! -e /p/sub\n",
        {"a.txt": "", "a.md": "", "sub/z": ""},
    ),
    "dockerignore": (
        "FROM busybox\nCOPY . /p/\nRUN test -f /p/keep.log && test ! -e /p/drop.log && test ! -e /p/node_modules\n",
        {".dockerignore": "*.log\n!keep.log\nnode_modules\n", "keep.log": "", "drop.log": "", "node_modules/x": ""},
    ),
    "heredocs": (
        "FROM busybox\nARG W=world\nRUN <<EOF\nset -e\necho one > /one\ntest -f /one\nEOF\nCOPY <<A <<'B' /h/\nhi $W\nA\nraw $W\nB\n"
        "RUN <<EOF cat > /piped\npiped\nEOF\nRUN <<EOF\n#!/bin/busybox sh\necho $0 > /script\nEOF\n"
        "RUN test \"$(cat /h/A)\" = 'hi world' && test \"$(cat /h/B)\" = 'raw $W' && test $(cat /piped) = piped && test -s /script\n",
        {},
    ),
    "shell": ('FROM busybox\nSHELL ["/bin/sh", "-ec"]\nRUN false || echo x > /x; test -f /x\n', {}),
    "exec form": ('FROM busybox\nRUN ["/bin/sh", "-c", "test $0 = zero", "zero"]\n', {}),
    "cache mount": (
        "FROM busybox\nRUN --mount=type=cache,target=/c echo 1 >> /c/n\nRUN --mount=type=cache,target=/c test $(wc -l < /c/n) = 1\n"
        "RUN --mount=type=cache,id=other,target=/c test ! -e /c/n\n"
        "RUN --mount=type=cache,id=owned,target=/o,uid=5,gid=6,mode=0700 test $(stat -c %u:%g:%a /o) = 5:6:700\n"
        "RUN test ! -e /c/n\n",
        {},
    ),
    "bind mount of the context": (
        "FROM busybox\nRUN --mount=target=/src test $(cat /src/d/f) = f && ! touch /src/x\n"
        "RUN --mount=source=d/f,target=/f test $(cat /f) = f\n"
        "RUN --mount=source=d,target=/d,rw echo new > /d/new && test -f /d/new\nRUN test ! -e /d/new\n",
        {"d/f": "f"},
    ),
    "bind mount of a stage": (
        "FROM busybox AS one\nRUN mkdir /d && echo one > /d/f\nFROM alpine:3.10\n"
        "RUN --mount=from=one,source=/d,target=/m test $(cat /m/f) = one\nRUN --mount=from=busybox,target=/b test -x /b/bin/sh\n",
        {},
    ),
    "tmpfs mount": ("FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=1m echo x > /t/x && grep '/t tmpfs' /proc/mounts\nRUN test ! -e /t/x\n", {}),
    "optional secret is not there": ("FROM busybox\nRUN --mount=type=secret,id=none test ! -e /run/secrets/none\n", {}),
    "network none": ("FROM busybox\nRUN --network=none test $(ls /sys/class/net) = lo && ip addr show lo | grep -q 127.0.0.1\n", {}),
    "network default": ("FROM busybox\nRUN test -d /sys/class/net/eth0 && ip route | grep -q default\n", {}),
    "stages from stages": (
        "FROM busybox AS a\nRUN echo a > /a\nFROM a AS b\nRUN echo b > /b\nFROM b\nRUN cat /a /b\n",
        {},
    ),
    "scratch": ("FROM busybox AS a\nFROM scratch\nCOPY --from=a /bin /bin\nCOPY a /a\nRUN [\"/bin/busybox\", \"test\", \"-f\", \"/a\"]\n", {"a": ""}),
    "add unpacks local archives": (
        "FROM busybox\nADD x.tar.gz y.tar /t/\nADD plain.gz /t/\nRUN test -f /t/one && test -f /t/dir/two && test -f /t/plain.gz\n",
        {"x.tar.gz": gzip.compress(tarball("one")), "y.tar": tarball("dir/two"), "plain.gz": gzip.compress(b"not a tar")},
    ),
    "add can leave them": ("FROM busybox\nADD --unpack=false y.tar /t/\nRUN test -f /t/y.tar\n", {"y.tar": tarball("z")}),
    "a deleted file is gone": ("FROM busybox\nRUN echo x > /x && mkdir /d && touch /d/y\nRUN rm -r /x /d\nRUN test ! -e /x && test ! -e /d\n", {}),
    "links and modes survive": (
        "FROM busybox\nRUN echo 1 > /a && ln /a /b && ln -s a /c && chmod 4755 /a\nRUN test $(stat -c %h /a) = 2 && test $(stat -c %a /b) = 4755 && test $(readlink /c) = a\n",
        {},
    ),
    "extra files of the runtime stay out": ("FROM scratch AS s\nCOPY --from=busybox /bin /bin\nFROM s\nRUN [\"/bin/busybox\", \"true\"]\nFROM busybox\nCOPY --from=1 / /s/\nRUN test $(ls -A /s) = bin\n", {}),
    "dockerfile of another name": ("FROM busybox\nRUN false\n", {"other/My.Dockerfile": "FROM busybox\nCOPY a /a\nRUN test -f /a\n", "a": ""}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_builds(builder: BuildClient, name: str) -> None:
    dockerfile, files = CASES[name]
    query = {"dockerfile": "other/My.Dockerfile"} if name == "dockerfile of another name" else {}
    assert builder.build(dockerfile, files, **query).image


def test_config_of_the_image(builder: BuildClient) -> None:
    text = (
        "FROM busybox\nEXPOSE 80 53/udp\nVOLUME /data\nLABEL a=b\nENV X=1\nUSER nobody\nSTOPSIGNAL SIGQUIT\nWORKDIR /w\n"
        'HEALTHCHECK --interval=5s CMD true\nENTRYPOINT ["/bin/echo"]\nCMD ["hi"]\nMAINTAINER me\nONBUILD RUN true\n'
    )
    config = builder.inspect(builder.build(text, t="configured", labels={"c": "d"}).image)
    found = config["Config"]
    assert config["RepoTags"] == ["configured:latest"]
    assert config["Author"] == "me"
    assert set(found["ExposedPorts"]) == {"80/tcp", "53/udp"}
    assert (found["Labels"], found["User"], found["WorkingDir"]) == ({"a": "b", "c": "d"}, "nobody", "/w")
    assert (found["Entrypoint"], found["Cmd"], found["OnBuild"]) == (["/bin/echo"], ["hi"], ["RUN true"])
    assert found["Healthcheck"]["Interval"] == 5_000_000_000
    assert found["StopSignal"] == "SIGQUIT"
    rows = builder.client.request("GET", "/images/configured/history")
    assert rows[0]["CreatedBy"] == "/bin/sh -c #(nop)  LABEL c=d"
    assert {row["Comment"] for row in rows[:-1]} == {""}


def test_onbuild_triggers_run_in_the_child(builder: BuildClient) -> None:
    builder.build("FROM busybox\nONBUILD COPY f /from-child\nONBUILD RUN test -f /from-child\n", t="parent")
    built = builder.build("FROM parent\nRUN cat /from-child\n", {"f": "child"})
    assert "child" in built.text
    assert not builder.inspect(built.image)["Config"]["OnBuild"]


def test_a_from_alone_is_the_image_itself(builder: BuildClient) -> None:
    assert builder.build("FROM busybox\n", t="same").image == builder.inspect("busybox")["Id"]


def test_target_args_and_warning(builder: BuildClient) -> None:
    text = "FROM busybox AS one\nARG A=x\nRUN echo is $A\nFROM busybox AS two\nRUN false\n"
    built = builder.build(text, target="one", buildargs={"A": "given", "UNUSED": "1"})
    assert "is given" in built.text
    assert "[Warning] One or more build-args [UNUSED] were not consumed" in built.text


def test_transcript(builder: BuildClient) -> None:
    lines = builder.build("FROM busybox\nRUN echo out\nRUN echo err >&2\n", t="told:1").text.splitlines()
    base = builder.inspect("busybox")["Id"].removeprefix("sha256:")[:12]
    assert lines[:3] == ["Step 1/3 : FROM busybox", f" ---> {base}", "Step 2/3 : RUN echo out"]
    assert lines[3].startswith(" ---> Running in ")
    assert lines[4] == "out"
    assert "\x1b[91merr" in lines
    image = builder.inspect("told:1")["Id"].removeprefix("sha256:")[:12]
    assert lines[-3:] == [f" ---> {image}", f"Successfully built {image}", "Successfully tagged told:1"]


def test_quiet_says_only_the_id(builder: BuildClient) -> None:
    built = builder.build("FROM busybox\nRUN echo noise\n", q="1", t="quiet")
    assert built.text == builder.inspect("quiet")["Id"] + "\n"


def test_named_network(builder: BuildClient) -> None:
    builder.client.request("POST", "/networks/create", {}, {"Name": "buildnet"})
    made = builder.client.request(
        "POST", "/containers/create", {"name": "peer"},
        {"Image": "busybox:latest", "Cmd": ["sleep", "60"], "HostConfig": {"NetworkMode": "buildnet"}},
    )["Id"]  # fmt: skip
    builder.client.request("POST", f"/containers/{made}/start")
    try:
        assert builder.build("FROM busybox\nRUN ping -c1 -W5 peer\n", networkmode="buildnet").image
        assert builder.build("FROM busybox\nRUN --network=buildnet ping -c1 -W5 peer; echo\n").image
    finally:
        builder.client.request("DELETE", f"/containers/{made}", {"force": True})
    builder.client.request("DELETE", "/networks/buildnet")


def test_extra_hosts(builder: BuildClient) -> None:
    assert builder.build("FROM busybox\nRUN grep -q '10.1.2.3.*somewhere' /etc/hosts\n", extrahosts="somewhere:10.1.2.3").image


def test_compressed_context(builder: BuildClient) -> None:
    plain = context({"Dockerfile": "FROM busybox\nCOPY a /\n", "a": "x"})
    assert builder.send(gzip.compress(plain)).image
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as archive:
        archive.addfile(tarfile.TarInfo("Dockerfile"), io.BytesIO(b""))
    with pytest.raises(InvalidParameter, match="no instructions"):
        builder.send(out.getvalue())
