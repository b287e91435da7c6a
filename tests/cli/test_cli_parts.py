"""The pure parts: templates, tables, sizes, ports, keys, progress, plans of copies, candidates, credentials, flags."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from dockyard.cli import archive, auths, catalogue, flags, listing, output, progress, usage
from dockyard.cli.commands.complete import candidates
from dockyard.cli.flags import Refusal, UsageError
from dockyard.cli.hints import hint_line, in_our_words, next_command
from dockyard.cli.main import _miscounted, run
from dockyard.cli.output import Column
from dockyard.cli.session import start_status
from dockyard.cli.template import compiled, render
from dockyard.cli.terminal import KeyWatch, key_bytes
from dockyard.errors import DockyardError, InvalidParameter
from dockyard.oci import tar
from dockyard.oci.tar import TarHeader, encode_header

DOCUMENT: dict[str, Any] = {
    "Id": "abc", "Name": "/web", "On": True, "Off": False, "N": 3, "List": ["a", "b"], "Empty": [],
    "Map": {"z": 1, "a": {"b": "deep"}}, "None": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "/web"),
        ("{{.ID}}", "abc"),
        ("{{.Map.a.b}}", "deep"),
        ("{{json .List}}", '["a","b"]'),
        ("{{.List}}", "[a b]"),
        ("{{.Map}}", "map[a:map[b:deep] z:1]"),
        ("{{if .On}}y{{else}}n{{end}}", "y"),
        ("{{if .Off}}y{{else if .On}}z{{else}}n{{end}}", "z"),
        ("{{if and .On (not .Off)}}y{{end}}", "y"),
        ("{{range .List}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range $i, $v := .List}}{{$i}}={{$v}} {{end}}", "0=a 1=b "),
        ("{{range $k, $v := .Map}}{{$k}},{{end}}", "a,z,"),
        ("{{with .Map.a}}{{.b}}{{end}}", "deep"),
        ("{{$x := .N}}{{$x}}", "3"),
        ("{{.Name | upper}}", "/WEB"),
        ('{{join .List ", "}}', "a, b"),
        ('{{index .Map "z"}}', "1"),
        ("{{index .List 1}}", "b"),
        ("{{len .List}}", "2"),
        ('{{printf "%s-%d" .Name .N}}', "/web-3"),
        ('{{eq .N 3}} {{ne .Name "x"}} {{gt .N 2}}', "true true true"),
        ("a {{- .N -}} b", "a3b"),
        ("{{/* words */}}x", "x"),
        ('{{slice .Name 1}}', "web"),
        ("{{.None}}", "<no value>"),
        ("{{.Nothing}}", "<no value>"),
        ('{{(index .List 0)}}', "a"),
        ('{{range split "a,b" ","}}{{.}};{{end}}', "a;b;"),
    ],
)
def test_templates(template: str, text: str) -> None:
    assert render(template, DOCUMENT) == text


@pytest.mark.parametrize(
    "template",
    ["{{", "{{.Name", "{{if .On}}", "{{end}}", "{{nothing .Name}}", "{{.Name.x}}", "{{index .List 9}}", "{{$x}}", "{{| upper}}", "{{(.Name}}"],
)
def test_broken_templates_are_refused(template: str) -> None:
    with pytest.raises(InvalidParameter, match="template parsing error"):
        render(template, DOCUMENT)


def test_a_strict_template_refuses_fields_that_are_not_there() -> None:
    with pytest.raises(InvalidParameter, match='no entry for key "Nothing"'):
        compiled("{{.Nothing}}", strict=True)(DOCUMENT)


def test_a_method_of_a_row() -> None:
    assert render('{{.Label "k"}}', {"Label": {"k": "v"}.get}) == "v"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1986000, "1.99MB"), (123456789, "123MB"), (1.5e9, "1.5GB"), (2e12, "2TB")],
)
def test_sizes(number: float, text: str) -> None:
    assert output.size(number) == text


def test_binary_sizes() -> None:
    assert output.binary_size(1 << 20) == "1MiB"
    assert output.binary_size(25276510208) == "23.54GiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (150, "2 minutes"),
     (3700, "About an hour"), (7200, "2 hours"), (86400 * 3, "3 days"), (86400 * 20, "2 weeks"), (86400 * 100, "3 months"),
     (86400 * 800, "2 years")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_a_table_gives_way_and_then_leaves_out() -> None:
    rows = [{"A": "a" * 30, "B": "b" * 20, "C": "c"}]
    columns = (Column("A", "A", soft=True), Column("B", "B", spare=1), Column("C", "C"))
    assert output.table(rows, columns)[1] == "a" * 30 + "   " + "b" * 20 + "   c"
    narrow = output.table(rows, columns, width=50)
    assert max(len(line) for line in narrow) <= 50
    assert narrow[1].split()[0].endswith("…")
    assert output.table(rows, columns, width=20)[0].split() == ["A", "C"]


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([], ""),
        ([(80, 0, "")], "80/tcp"),
        ([(80, 8080, "0.0.0.0")], "0.0.0.0:8080->80/tcp"),
        ([(80, 80, "0.0.0.0"), (81, 81, "0.0.0.0"), (82, 82, "0.0.0.0")], "0.0.0.0:80-82->80-82/tcp"),
        ([(90, 0, ""), (91, 0, ""), (93, 0, "")], "90-91/tcp, 93/tcp"),
        ([(80, 8080, "::")], "[::]:8080->80/tcp"),
    ],
)
def test_ports_of_a_list(ports: list[tuple[int, int, str]], text: str) -> None:
    documents = [{"PrivatePort": inside, "PublicPort": out, "IP": address, "Type": "tcp"} for inside, out, address in ports]
    assert listing.displayable_ports(documents) == text


def test_image_rows_one_a_tag_and_nameless_ones() -> None:
    image = {"Id": "sha256:" + "a" * 64, "RepoTags": ["x:1", "x:2"], "RepoDigests": ["x@sha256:d"], "Size": 1000, "Created": 0}
    assert [(row["Repository"], row["Tag"], row["Digest"]) for row in listing.image_rows(image, whole=False, digests=False)] == [
        ("x", "1", "<none>"), ("x", "2", "<none>"),
    ]  # fmt: skip
    assert listing.image_rows(image, whole=False, digests=True)[0]["Digest"] == "sha256:d"
    assert listing.image_rows({"Id": "sha256:b", "RepoTags": None}, whole=True, digests=False)[0]["Tag"] == "<none>"


def test_key_sequences() -> None:
    assert key_bytes("ctrl-p,ctrl-q") == b"\x10\x11"
    assert key_bytes("a,ctrl-[,ctrl-@") == b"a\x1b\x00"
    for wrong in ("ctrl-", "ctrl-1", "what", "", "a,,b"):
        with pytest.raises(UsageError):
            key_bytes(wrong)


@pytest.mark.parametrize(
    ("typed", "sent", "left"),
    [([b"hello"], b"hello", False), ([b"\x10\x11"], b"", True), ([b"a\x10", b"\x11b"], b"a", True),
     ([b"\x10x"], b"\x10x", False), ([b"\x10\x10\x11"], b"\x10", True), ([b"a\x10"], b"a", False)],
)  # fmt: skip
def test_detach_keys_are_held_back_and_found(typed: list[bytes], sent: bytes, left: bool) -> None:
    watch = KeyWatch(b"\x10\x11")
    out, over = b"", False
    for data in typed:
        more, over = watch.take(data)
        out += more
    assert (out, over) == (sent, left)


def test_progress_without_a_terminal_tells_changes_only() -> None:
    out = io.StringIO()
    messages = [
        {"status": "Pulling from x", "id": "latest"},
        {"status": "Downloading", "id": "abc", "progressDetail": {"current": 5, "total": 10}},
        {"status": "Pull complete", "id": "abc", "progressDetail": {}},
        {"stream": "Loaded image: x\n"}, {"aux": {"ID": "y"}},
    ]  # fmt: skip
    assert progress.Progress(out).show(messages) == [{"ID": "y"}]
    assert out.getvalue() == "latest: Pulling from x\nabc: Pull complete\nLoaded image: x\n"


def test_progress_on_a_terminal_goes_back_to_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    detail = {"current": 5_000_000, "total": 10_000_000}
    progress.Progress(out).show([
        {"id": "a", "status": "Waiting"}, {"id": "b", "status": "Waiting"},
        {"id": "a", "status": "Downloading", "progressDetail": detail}, {"status": "Digest " + "d" * 90},
    ])  # fmt: skip
    text = out.getvalue()
    assert "\x1b[2A\x1b[2K\ra: Downloading [====" in text
    assert "5MB/10MB\x1b[2B" in text
    assert text.endswith("d" * 90 + "\n"), "what is not drawn again is not cut"
    assert all(len(line) < 80 for line in text.replace("\x1b", "\n").splitlines()[:-1])


def test_what_others_say_does_not_steer_the_terminal() -> None:
    out = io.StringIO()
    progress.Progress(out).show([{"id": "a", "status": "\x1b[2Jgone\x07"}, {"stream": "\x9b1mx\n"}])
    assert out.getvalue() == "a: \ufffd[2Jgone\ufffd\n\ufffd1mx\n"
    assert output.table([{"A": "\x1b[31mred"}], (Column("A", "A"),))[1] == "\ufffd[31mred"


def test_an_answer_that_makes_no_sense_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from dockyard.cli.flags import Options
    from dockyard.cli.shell import Shell

    def broken(shell: Shell, options: Options) -> int:
        raise KeyError("StatusCode")

    assert Shell(command="wait").guarded(broken, Options({}, [])) == 1
    assert "cannot understand the engine's answer: KeyError: 'StatusCode'" in capsys.readouterr().err
    with pytest.raises(KeyError):
        Shell(command="wait", debug=True).guarded(broken, Options({}, []))


def test_a_failure_told_within_the_stream_is_raised() -> None:
    with pytest.raises(DockyardError, match="manifest unknown"):
        progress.Progress(io.StringIO()).show([{"errorDetail": {"message": "manifest unknown"}, "error": "x"}])


@pytest.mark.parametrize(
    ("message", "code"),
    [("exec: \"x\": executable file not found in $PATH", 127), ("stat /x: no such file or directory", 127),
     ("exec: \"/etc\": permission denied", 126), ("exec /etc: is a directory", 126), ("port is already allocated", 125)],
)  # fmt: skip
def test_exit_codes_of_a_start_that_failed(message: str, code: int) -> None:
    assert start_status(message) == code


def test_hints() -> None:
    assert next_command("No such container: x") == "dockyard ps -a"
    assert next_command("network x not found") == "dockyard network ls"
    assert next_command('exec: "/etc": permission denied') == ""
    assert next_command("all is well") == ""
    unreached = 'Get "https://{}/v2/": dial tcp: lookup {}: no such host'
    assert next_command(unreached.format("r:5000", "r")) == "dockyard doctor registry r:5000"
    assert "; without any registry: dockyard image bootstrap" in next_command(unreached.format(*["registry-1.docker.io"] * 2))
    assert hint_line("dockyard ps -a") == "try: dockyard ps -a"
    assert hint_line("allowed: label, name") == "hint: allowed: label, name"
    assert in_our_words("container web publishes it: docker stop web") == "container web publishes it: dockyard stop web"
    assert in_our_words("sets docker0 and the docker.sock") == "sets docker0 and the docker.sock"


DIRECTORY, FILE, NOTHING = (archive.Target("/t", True, True), archive.Target("/t", True, False), archive.Target("/p/t", False, False))


@pytest.mark.parametrize(
    ("source", "is_dir", "target", "wanted"),
    [
        ("/s/a", False, DIRECTORY, ("/t", "a")),
        ("/s/d", True, DIRECTORY, ("/t", "d")),
        ("/s/d/", True, DIRECTORY, ("/t", "d")),
        ("/s/d/.", True, DIRECTORY, ("/t", "")),
        ("/s/a", False, FILE, ("/", "t")),
        ("/s/a", False, NOTHING, ("/p", "t")),
        ("/s/d", True, NOTHING, ("/p", "t")),
        ("/s/d/.", True, NOTHING, ("/p", "t")),
        ("/s/d", True, archive.Target("/p/t/", False, False), ("/p", "t")),
        ("/", True, DIRECTORY, ("/t", "")),
    ],
)
def test_where_a_copy_goes(source: str, is_dir: bool, target: archive.Target, wanted: tuple[str, str]) -> None:
    assert tuple(archive.plan(source, is_dir, target)) == wanted


def test_copies_that_cannot_be() -> None:
    with pytest.raises(Refusal, match="cannot copy directory"):
        archive.plan("/s/d", True, FILE)
    with pytest.raises(Refusal, match="no such directory"):
        archive.plan("/s/a", False, archive.Target("/t/", False, False))


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("web:/a", ("web", "/a")), ("/a:b", ("", "/a:b")), ("./a:b", ("", "./a:b")), ("a", ("", "a")), ("-", ("", "-")), ("web:", ("web", ""))],
)
def test_places_of_a_copy(word: str, wanted: tuple[str, str]) -> None:
    assert archive.place(word) == wanted


def _tar(*headers: TarHeader) -> bytes:
    return b"".join(encode_header(header) + b"x" * header.size + tar.padding(header.size) for header in headers) + tar.END_OF_ARCHIVE


def _unpacked(stream: bytes, name: str, folder: Path) -> None:
    from dockyard.kernel import safefs

    with safefs.root_fd(str(folder)) as root:
        reader = archive.ChunkReader(archive.renamed([stream[i : i + 700] for i in range(0, len(stream), 700)], name, [0]))
        archive.unpack(reader, root, "/", keep_kind=True, owner=None)


def test_an_archive_gets_its_new_name(tmp_path: Path) -> None:
    stream = _tar(
        TarHeader(b"d/", tar.DIR, 0o755), TarHeader(b"d/f", size=900), TarHeader(b"d/h", tar.LINK, linkname=b"d/f"),
        TarHeader(b"d/s", tar.SYMLINK, linkname=b"f"),
    )  # fmt: skip
    _unpacked(stream, "new", tmp_path)
    assert (tmp_path / "new/f").read_bytes() == b"x" * 900
    assert (tmp_path / "new/h").stat().st_ino == (tmp_path / "new/f").stat().st_ino
    assert os.readlink(tmp_path / "new/s") == "f"
    _unpacked(stream, "", tmp_path / "new")
    assert (tmp_path / "new/f").exists()
    assert not (tmp_path / "new/d").exists()


@pytest.mark.parametrize("name", ["", "new"])
def test_a_hostile_archive_stays_where_it_is_put(tmp_path: Path, name: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    link = str(outside).encode()
    for stream in (
        _tar(TarHeader(b"d/", tar.DIR, 0o755), TarHeader(b"d/l", tar.SYMLINK, linkname=link), TarHeader(b"d/l/f", size=1)),
        _tar(TarHeader(b"d/", tar.DIR, 0o755), TarHeader(b"../outside/f", size=1)),
        _tar(TarHeader(b"d/", tar.DIR, 0o755), TarHeader(b"d/../../outside/f", size=1)),
        _tar(TarHeader(b"d/", tar.DIR, 0o755), TarHeader(b"d/f", tar.LINK, linkname=b"../outside/secret")),
    ):
        (outside / "secret").write_text("s")
        with contextlib.suppress(DockyardError, OSError):
            _unpacked(stream, name, inside)
        assert sorted(path.name for path in outside.iterdir()) == ["secret"]
        assert (outside / "secret").stat().st_nlink == 1


NAMES = {"container": ["web", "db"], "running": ["web"], "image": ["busybox:latest"], "volume": ["data"], "network": ["bridge", "host"]}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["volu"], ["volume"]),
        (["volume", "l"], ["list", "ls"]),
        (["stop", ""], ["web"]),
        (["rm", "d"], ["db"]),
        (["rm", "db", ""], ["web", "db"]),
        (["exec", "-it", "w"], ["web"]),
        (["exec", "web", ""], []),
        (["run", "--network", ""], ["bridge", "host"]),
        (["run", "--netw"], ["--network", "--network-alias"]),
        (["run", "--rm", "busy"], ["busybox:latest"]),
        (["run", "-p", "80:80", ""], ["busybox:latest"]),
        (["run", "busybox", ""], []),
        (["-H", "unix:///x", "start", ""], ["web", "db"]),
        (["cp", "w"], ["web:"]),
        (["network", "connect", ""], ["bridge", "host"]),
        (["network", "connect", "bridge", ""], ["web", "db"]),
        (["inspect", ""], ["web", "db", "busybox:latest", "data", "bridge", "host"]),
        (["completion", "z"], ["zsh"]),
        (["nothing", ""], []),
    ],
)
def test_candidates(words: list[str], wanted: list[str]) -> None:
    assert candidates(words, lambda kind: NAMES[kind]) == wanted


def test_credentials_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "made"))
    file = auths.store("host:5000", "me", "p:w", "")
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert auths.credentials("host:5000") == {"username": "me", "password": "p:w", "serveraddress": "host:5000"}
    sent = json.loads(base64.urlsafe_b64decode(auths.header_for("host:5000/app:1")["X-Registry-Auth"]))
    assert sent["password"] == "p:w"
    assert auths.credentials("other") == {}
    document = json.loads(Path(file).read_text()) | {"kept": {"by": "us"}}
    Path(file).write_text(json.dumps(document))
    assert auths.erase("host:5000")
    assert not auths.erase("host:5000")
    assert json.loads(Path(file).read_text())["kept"] == {"by": "us"}


def test_a_broken_configuration_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text('{"auths": ')
    with pytest.raises(DockyardError, match="cannot change"):
        auths.store("host", "me", "pw", "")
    assert (tmp_path / "config.json").read_text() == '{"auths": '


def test_a_credential_helper_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-safe"
    helper.write_text(
        "#!/bin/sh\nread server\ncase $1:$server in get:host) echo '{\"Username\":\"me\",\"Secret\":\"pw\"}';;"
        " get:*) echo 'credentials not found in native keychain'; exit 1;; *) cat > /dev/null;; esac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "safe"}))
    assert auths.credentials("host")["password"] == "pw"
    assert auths.credentials("other") == {}
    assert auths.store("host", "me", "pw", "") == "", "nothing unencrypted"
    assert "auth" not in json.loads((tmp_path / "config.json").read_text())["auths"]["host"]
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "missing"}))
    with pytest.raises(DockyardError, match="cannot run docker-credential-missing get"):
        auths.credentials("host")


def test_moments() -> None:
    assert usage.moment_of("") is None
    assert usage.moment_of("1700000000.5") == "1700000000.5"
    assert usage.moment_of("10m", now=1000.0) == "400.000000000"
    assert usage.moment_of("2026-01-02T03:04:05.5Z") == "1767323045.500000000"
    assert usage.moment_of("2026-01-02T03:04:05+01:00") == "1767319445.000000000"
    with pytest.raises(UsageError):
        usage.moment_of("yesterday")


def test_cpu_and_memory_of_a_sample() -> None:
    sample = {
        "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
        "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
        "memory_stats": {"usage": 3 << 20, "limit": 1 << 30, "stats": {"inactive_file": 1 << 20}},
    }  # fmt: skip
    row = usage.stats_row("x", sample, whole=False)
    assert (row["CPUPerc"], row["MemUsage"], row["MemPerc"]) == ("40.00%", "2MiB / 1GiB", "0.20%")
    assert usage.cpu_percent({}) == 0


def test_flags_as_pflag_reads_them() -> None:
    known = flags.declared("-a, --all  x\n-i, --input  x\n-v, --volume SPEC...  x\n-n, --last N  x\n    --name NAME  x")
    options = flags.parse(known, ["-ai", "-v/a:/b", "-v=c", "--volume", "d", "-n5", "--name=x=y", "word", "--", "-z"])
    assert options.on("all")
    assert options.on("input")
    assert options.all("volume") == ["/a:/b", "c", "d"]
    assert options.number("last") == 5
    assert options.text("name") == "x=y"
    assert options.words == ["word", "-z"]
    assert not flags.parse(known, ["--all=false"]).on("all", default=True)
    assert flags.parse(known, ["a", "--all"], interspersed=False).words == ["a", "--all"]


def test_positional_words_are_counted_by_the_usage_line() -> None:
    assert _miscounted("[OPTIONS]", 1) == "accepts no arguments"
    assert _miscounted("[OPTIONS] NAME[:TAG]", 0) == "requires exactly 1 argument"
    assert _miscounted("[OPTIONS] CONTAINER [CONTAINER...]", 9) == ""
    assert _miscounted("CONTAINER [PORT]", 3) == "requires at most 2 arguments"


@pytest.mark.parametrize("name", sorted(catalogue.COMMANDS))
def test_every_command_is_there_with_flags_that_can_be_read(name: str) -> None:
    import importlib

    command = catalogue.COMMANDS[name]
    module = importlib.import_module(f"dockyard.cli.commands.{command.module}")
    assert callable(getattr(module, command.function))
    declared = flags.declared(module.FLAGS.get(command.function, ""))
    assert len({flag.name for flag in declared}) == len(declared)
    shorts = [flag.short for flag in declared if flag.short]
    assert len(set(shorts)) == len(shorts)
    assert all(flag.help for flag in declared)


@pytest.mark.parametrize("name", sorted(catalogue.COMMANDS))
def test_help_fits_80_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:

    command = catalogue.COMMANDS[name]
    if command.module == "daemon":
        pytest.skip("another room's words")
    assert run([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert not [line for line in text.splitlines() if len(line) > 80 and not line.startswith("  dockyard ")]


def test_starting_the_command_line_loads_little() -> None:
    import subprocess
    import sys

    code = "import sys; from dockyard.cli.main import run; run(['ps', '--help']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"asyncio", "ssl", "http.client", "dataclasses", "inspect", "email", "urllib.parse", "subprocess", "msgspec", "dockyard.oci", "argparse", "datetime"}
    assert not loaded & heavy


def test_a_command_of_another_room_leaks_no_stack_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import dockyard.doctor.main

    def main(argv: list[str]) -> int:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(dockyard.doctor.main, "main", main)
    assert run(["doctor"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "dockyard doctor: [Errno 98] Address already in use",
        "try: dockyard doctor --help, or dockyard --debug doctor ...",
    ]
    with pytest.raises(OSError, match="in use"):
        run(["--debug", "doctor"])
