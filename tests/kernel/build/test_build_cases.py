"""What moby's own CLI tests expect of a build, re-expressed as a table: each Dockerfile checks itself, or fails with the
sentence given. ``BUILD_ENGINE=dockerd`` runs the same on Debian's dockerd.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from typing import Any

import pytest

from dockyard.errors import DockyardError

from .conftest import BuildClient, Files, context

pytestmark = pytest.mark.root


def tar_of(name: str) -> bytes:
    return context({name: "content"})


WORKS: dict[str, tuple[str, Files]] = {
    "env is expanded in user": ("FROM busybox\nENV u nobody\nUSER ${u}\nRUN test $(id -un) = nobody\n", {}),
    "env is expanded in workdir": ("FROM busybox\nENV d /srv\nENV e=/x\nWORKDIR ${d}$e\nRUN test $PWD = /srv/x\n", {}),
    "env is expanded in add and copy": (
        "FROM busybox\nENV a=f b=foo q=/to\nADD ${a}oo $q/\nCOPY ${b}2 $q/\nRUN test -f /to/foo && test -f /to/foo2\n",
        {"foo": "", "foo2": ""},
    ),
    "env overwrites env": ("FROM busybox\nENV abc=zzz\nENV abc=def xyz=${abc}\nRUN test $abc$xyz = defzzz\n", {}),
    "env with spaces and quotes": ('FROM busybox\nENV a="b c" d=e\\ f\nRUN test "$a|$d" = "b c|e f"\n', {}),
    "env of the old form": ("FROM busybox\nENV abc   this is  it\nRUN test \"$abc\" = 'this is  it'\n", {}),
    "escaped dollar": ("FROM busybox\nENV a=1 b=\\$a\nRUN test $b = '$a'\n", {}),
    "lines go on, with comments between": (
        "FROM busybox\nRUN echo a \\\n# a comment\n   && true \\\n\n   && touch /ok\nRUN test -f /ok\n", {},
    ),
    "escape directive": ("# escape=`\nFROM busybox\nRUN echo a `\n && touch /c:\\x\nRUN ls / | grep -q 'c:'\n", {}),
    "windows line ends": ("FROM busybox\r\nRUN touch /a\r\nRUN test -f /a\r\n", {}),
    "instructions in any case": ("from busybox\nrUn touch /a\nRun test -f /a\n", {}),
    "sixty steps": ("FROM busybox\n" + "".join(f"COPY f{n} /\n" for n in range(60)), {f"f{n}": "" for n in range(60)}),
    "one file to the root": (
        "FROM busybox\nCOPY f /\nRUN test $(stat -c %u:%g:%a /f) = 0:0:644 && test $(stat -c %a /) = 755\n", {"f": ""},
    ),
    "one file to a workdir": ("FROM busybox\nWORKDIR /new/dir\nCOPY f .\nRUN test -f /new/dir/f\n", {"f": ""}),
    "one file to an existing directory": (
        "FROM busybox\nRUN mkdir /e && touch /e/old && chown 5:6 /e\nCOPY f /e/\n"
        "RUN test $(stat -c %u:%g /e) = 5:6 && test $(stat -c %u /e/f) = 0 && test -f /e/old\n", {"f": ""},
    ),
    "one file to a new directory": ("FROM busybox\nCOPY f /n/m/\nRUN test $(stat -c %u:%a /n/m) = 0:755 && test -f /n/m/f\n", {"f": ""}),
    "many files into one": ("FROM busybox\nCOPY a b c/d /to/\nRUN test $(ls /to | wc -l) = 3\n", {"a": "", "b": "", "c/d": ""}),
    "directory content, not the directory": ("FROM busybox\nCOPY d /to\nCOPY d/ /to2/\nRUN test -f /to/x && test -f /to2/x\n", {"d/x": ""}),
    "a whole context": ("FROM busybox\nCOPY . /to\nRUN test -f /to/Dockerfile && test -f /to/a/b/c\n", {"a/b/c": ""}),
    "an empty directory": ("FROM busybox\nCOPY d /d\nRUN test -d /d/e\n", {"d/": "", "d/e/": ""}),
    "wildcards": (
        "FROM busybox\nCOPY f*.txt d*/x? /w/\nRUN test \"$(echo $(ls /w))\" = 'f1.txt f2.txt x1'\n",
        {"f1.txt": "", "f2.txt": "", "g.txt": "", "d1/x1": "", "d1/y1": ""},
    ),
    "names with spaces": ('FROM busybox\nCOPY ["a file", "d d/x", "/with space/"]\nRUN test -f "/with space/a file"\n', {"a file": "", "d d/x": ""}),
    "wildcards in names that exist": ("FROM busybox\nCOPY [[]x].txt /t/\nRUN test -f '/t/[x].txt'\n", {"[x].txt": ""}),
    "a link as source is followed": ("FROM busybox\nCOPY l /f\nRUN test $(cat /f) = real && test ! -L /f\n", {"d/real": "real", "l": ("link", "d/real")}),
    "a link in a directory stays a link": (
        "FROM busybox\nCOPY d /d\nRUN test -L /d/l && test $(readlink /d/l) = ../x\n", {"d/l": ("link", "../x")},
    ),
    "a link as target directory is followed": (
        "FROM busybox\nRUN mkdir /real && ln -s real /l\nCOPY d /l\nRUN test -f /real/x && test -L /l\n", {"d/x": ""},
    ),
    "a file replaces a file": ("FROM busybox\nRUN echo old > /f && chmod 600 /f\nCOPY f /f\nRUN test $(cat /f) = new\n", {"f": "new"}),
    "xz archives are unpacked": ("FROM busybox\nADD x.tar.xz /\nRUN test $(cat /inside) = content\n", {"x.tar.xz": lzma.compress(tar_of("inside"))}),
    "copy does not unpack": ("FROM busybox\nCOPY x.tar /t/\nRUN test -f /t/x.tar\n", {"x.tar": tar_of("inside")}),
    "something compressed is no archive": ("FROM busybox\nADD x.xz /t/\nRUN test -f /t/x.xz\n", {"x.xz": lzma.compress(b"plain")}),
    "groups of a user": (
        "FROM busybox\nRUN echo 'app:x:1001:1001::/home/app:/bin/sh' >> /etc/passwd && echo 'app:x:1001:' >> /etc/group && "
        "echo 'more:x:1002:app' >> /etc/group\nUSER app\nRUN test \"$(id -G)\" = '1001 1002' && test $HOME = /home/app\n"
        "USER app:more\nRUN test \"$(id -G)\" = 1002\nUSER 1001\nRUN test $(id -g) = 1001\nUSER 1042:43\nRUN test $(id -u):$(id -g) = 1042:43\n", {},
    ),
    "volumes keep what is put there before": ("FROM busybox\nRUN mkdir /v && echo x > /v/f\nVOLUME /v\nRUN test $(cat /v/f) = x\n", {}),
    "arg has a default, env beats it": ("FROM busybox\nARG a=arg\nARG b=arg\nENV b=env\nRUN test $a = arg && test $b = env\n", {}),
    "arg before its line is empty": ("FROM busybox\nRUN test -z \"$late\"\nARG late=x\nRUN test $late = x\n", {}),
    "arg before from": ("ARG tag=latest\nFROM busybox:$tag\nRUN test -z \"$tag\"\nARG tag\nRUN test $tag = latest\n", {}),
    "stage names in any case": ("FROM busybox AS First\nRUN touch /x\nFROM first AS SECOND\nCOPY --from=FIRST /x /y\nRUN test -f /y\n", {}),
    "a stage named like an image": ("FROM busybox AS hello-world\nRUN touch /x\nFROM hello-world\nRUN test -f /x\n", {}),
    "a directory made opaque": (
        "FROM busybox AS o\nRUN mkdir /d && touch /d/old\nFROM o AS p\nRUN rm -r /d && mkdir /d && touch /d/new\nFROM busybox\n"
        "COPY --from=p /d /d\nRUN test \"$(ls /d)\" = new\n", {},
    ),
    "ignored files": (
        "FROM busybox\nCOPY . /t\nRUN test ! -e /t/Dockerfile && test ! -e /t/.dockerignore && test -f /t/a && test ! -e /t/d/x.o && test -f /t/d/y\n",
        {".dockerignore": "# comment\nDockerfile\n.dockerignore\n**/*.o\n", "a": "", "d/x.o": "", "d/y": ""},
    ),
    "ignored but for one": ("FROM busybox\nCOPY . /t\nRUN test \"$(ls /t/d)\" = keep\n", {".dockerignore": "d/*\n!d/keep\n", "d/keep": "", "d/drop": ""}),
    "everything ignored but the needed": ("FROM busybox\nCOPY a /a\nRUN test -f /a\n", {".dockerignore": "*\n!a\n", "a": "", "b": ""}),
    "shared memory and proc are there": ("FROM busybox\nRUN df /dev/shm | grep -q shm && test -d /proc/1 && test -c /dev/null && test -w /tmp\n", {}),
}  # fmt: skip

FAILS: dict[str, tuple[str, Files, str]] = {
    "no source": ("FROM busybox\nCOPY nothing /\n", {}, "not found|no such file|no source files"),
    "no match": ("FROM busybox\nCOPY *.none /\n", {}, "not found|no source files"),
    "an ignored source": ("FROM busybox\nCOPY f /\n", {".dockerignore": "f\n", "f": ""}, "not found|no such file|excluded|no source"),
    "out of the context": ("FROM busybox\nCOPY ../../../etc/passwd /p\n", {}, "not found|[Ff]orbidden|no such file|outside"),
    "many files, no slash": ("FROM busybox\nCOPY a b /t\n", {"a": "", "b": ""}, "destination must be a directory and end with a /"),
    "blank env": ("FROM busybox\nENV =foo\n", {}, "names can not be blank"),
    "blank arg": ("FROM busybox\nARG =foo\n", {}, "names can not be blank"),
    "blank label": ("FROM busybox\nLABEL =foo\n", {}, "names can not be blank"),
    "empty volume": ("FROM busybox\nENV v\nVOLUME ${none}\n", {}, "can not be an empty string|must have two arguments"),
    "run without a command": ("FROM busybox\nRUN\n", {}, "at least one argument|unknown|missing|EOF"),
    "maintainer with nothing": ("FROM busybox\nMAINTAINER\n", {}, "exactly one argument|requires"),
    "from three words": ("FROM busybox x\n", {}, "requires either one or three arguments"),
    "onbuild onbuild": ("FROM busybox\nONBUILD ONBUILD RUN true\n", {}, "ONBUILD ONBUILD|isn't allowed"),
    "onbuild from": ("FROM busybox\nONBUILD FROM busybox\n", {}, "isn't allowed"),
    "a bad signal": ("FROM busybox\nSTOPSIGNAL a b\n", {}, "exactly one argument|Invalid signal"),
    "healthcheck of a kind": ("FROM busybox\nHEALTHCHECK FOO\n", {}, "Unknown type"),
    "shell that is no list": ("FROM busybox\nSHELL sh\n", {}, "JSON"),
    "from a stage to come": ("FROM busybox\nCOPY --from=1 /x /x\n", {}, "not before this one|invalid from flag value"),
    "a bad port": ("FROM busybox\nEXPOSE 80000\n", {}, "[Ii]nvalid port|out of range|containerPort"),
    "exec form of nothing": ('FROM busybox\nRUN [ "abc" ]\n', {}, "not found"),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKS)
def test_works(builder: BuildClient, name: str) -> None:
    text, files = WORKS[name]
    assert builder.build(text, files).image


@pytest.mark.parametrize("name", FAILS)
def test_fails(builder: BuildClient, name: str) -> None:
    text, files, sentence = FAILS[name]
    with pytest.raises(DockyardError, match=sentence):
        _strictly(builder, text, files)


def _strictly(builder: BuildClient, text: str, files: Files, **query: Any) -> None:
    """A status or an error in the stream: moby has both for the same, by version."""
    if error := builder.build(text, files, **query).error:
        raise DockyardError(error)


def test_a_context_whose_links_loop(builder: BuildClient) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, link in (("a", "b"), ("b", "a"), ("w", "/x")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
        for name, data in (("w/below", b"x"), ("Dockerfile", b"FROM busybox\nCOPY . /c\nCOPY a /a\n")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert "not found" in builder.send(out.getvalue()).error


def test_network_of_a_container(builder: BuildClient) -> None:
    wish = {"Image": "busybox:latest", "Cmd": ["sh", "-c", "echo served > /tmp/f; httpd -f -p 81 -h /tmp"]}
    made = builder.client.request("POST", "/containers/create", {}, wish)["Id"]
    builder.client.request("POST", f"/containers/{made}/start")
    try:
        text = "FROM busybox\nRUN i=0; until wget -qO- http://127.0.0.1:81/f; do i=$((i+1)); test $i -lt 50; sleep 0.2; done\n"
        assert "served" in builder.build(text, networkmode=f"container:{made}", nocache="1").text
    finally:
        builder.client.request("DELETE", f"/containers/{made}", {"force": True})


def test_limits_reach_the_step(builder: BuildClient) -> None:
    text = "FROM busybox\nRUN test $(ulimit -n) = 77 && df /dev/shm | grep -q ' 3072 '\n"
    query: dict[str, Any] = {"ulimits": [{"Name": "nofile", "Soft": 77, "Hard": 77}], "shmsize": str(3 << 20)}
    assert builder.build(text, **query).image


def test_an_archive_that_ends_without_padding(builder: BuildClient) -> None:
    """What the docker CLI sends where the Dockerfile lies outside of the context."""
    whole = context({"a": "x", "Dockerfile": "FROM busybox\nCOPY a /a\n"})
    end = whole.rindex(b"COPY a /a\n") + len(b"COPY a /a\n")
    assert builder.send(whole[:end]).image
    with pytest.raises(DockyardError, match="unexpected EOF"):
        builder.send(whole[: end - 1])
