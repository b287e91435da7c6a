"""podman's own requests for its Docker-compatible API (Debian's source package libpod, test/apiv2), run against an engine.

The scripts are used as they are, but for one line (a fixture that fails does not end the run): bash, curl and jq. What
they do with the podman program a shim turns into docker commands, and where they start podman's service it forwards
their port to the engine's socket. Requests of podman's own API (``libpod/``) are no part of the outcome; groups that
Dockyard does not serve are left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from .engines import PrivateEngine
from .suites import CACHE, Outcome, Report

NAME = "podman-apiv2"
FILES = ("01-basic", "10-images", "12-imagesMore", "20-containers", "23-containersArchive", "26-containersWait", "27-containersEvents",
         "30-volumes", "35-networks", "44-mounts", "45-system", "60-auth")  # fmt: skip
IMAGES = {
    "quay.io/libpod/alpine_labels:latest": "alpine:3.10", "quay.io/libpod/alpine:latest": "alpine:3.10",
    "quay.io/libpod/busybox:latest": "busybox:latest", "quay.io/libpod/testimage:20200929": "alpine:3.10",
    "quay.io/libpod/testimage:20210610": "alpine:3.10", "docker.io/library/alpine:latest": "alpine:latest",
}  # fmt: skip
"""What the scripts pull, and the image of the kit that goes by the name."""
FILE_LIMIT = 240
"""Seconds for one file of requests."""
SOURCES = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
SHIM = """#!/bin/bash
# podman, as far as the fixtures need it, in docker's words
args=()
while [ $# -gt 0 ]; do case "$1" in --root|--runroot) shift 2;; --syslog=*) shift;; *) args+=("$1"); shift;; esac; done
set -- "${args[@]}"
case "$1 $2" in
    "system service") exec {python} {forward} "${@: -1}" {socket} ;;
    "rm -a"|"container rm") docker ps -aq | xargs -r docker rm -f -v >/dev/null; exit 0 ;;
    "rmi -a"|"rmi -af"|"pod "*|"manifest "*|"system connection"|"generate "*) exit 0 ;;
    "image build") shift; exec docker "$@" ;;
    "init "*) exit 0 ;;
esac
if [ "$1" = pull ]; then docker image inspect "${@: -1}" >/dev/null 2>&1 && exit 0; fi
entry=$(printf '%s\\n' "$@" | sed -n 's/^\\["\\([^"]*\\)"\\]$/\\1/p')
if [ -n "$entry" ]; then set -- "${@/\\[\"$entry\"\\]/$entry}"; fi
if [ "$1" = untag ]; then exec docker rmi "$2"; fi
if [ "$1" = run ]; then
    words=(); previous=
    for word; do
        if [ "$word" != --replace ]; then words+=("$word"); fi
        if [ "$previous" = --name ]; then docker rm -f "$word" >/dev/null 2>&1; fi
        previous=$word
    done
    set -- "${words[@]}"
fi
exec docker "$@"
"""
FORWARD = """import socket, sys, threading

def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass

port = int(sys.argv[1].rpartition(":")[2])
listener = socket.create_server(("", port), family=socket.AF_INET)
while True:
    client = listener.accept()[0]
    engine = socket.socket(socket.AF_UNIX)
    engine.connect(sys.argv[2])
    for pair in ((client, engine), (engine, client)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""
_LINE = re.compile(r"(not ok|ok) \d+ \[([^]]+)\] (.*)")


def prepare() -> Path:
    """The folder of the scripts. Needs Debian's mirror the first time (deb-src through a private sources list)."""
    home = CACHE / NAME
    scripts = home / "apiv2"
    if scripts.exists():
        return scripts
    (home / "lists/partial").mkdir(parents=True, exist_ok=True)
    (home / "src.sources").write_text(SOURCES)
    options = [
        "-o",
        "Dir::Etc::sourceparts=/dev/null",
        "-o",
        f"Dir::Etc::SourceList={home}/src.sources",
        "-o",
        f"Dir::State::lists={home}/lists",
    ]
    for words in (["update"], ["source", "--download-only", "--only-source", "libpod"]):
        subprocess.run(["apt-get", "-q", *options, *words], cwd=home, check=True, capture_output=True, timeout=300)
    with tarfile.open(next(home.glob("libpod_*.orig.tar.xz"))) as archive:
        wanted = [
            member for member in archive if re.match(r"[^/]+/test/apiv2/[^/]+\Z", member.name) and member.isfile()
        ]
        part = home / "apiv2.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        for member in wanted:
            source = archive.extractfile(member)
            assert source is not None
            (part / Path(member.name).name).write_bytes(source.read())
    # Their harness ends the service at the first command that fails; requests of podman's own API always do here.
    harness = part / "test-apiv2"
    harness.write_text(harness.read_text().replace("trap err_handler ERR\n", "\n"))
    harness.chmod(0o755)
    part.rename(scripts)
    return scripts


def run(engine: PrivateEngine, files: Sequence[str] = FILES) -> Report:
    """File by file, so that one that gives up takes no other with it."""
    scripts, tools = prepare(), engine.root / "podman-tools"
    tools.mkdir()
    (tools / "forward.py").write_text(FORWARD)
    shim = tools / "podman"
    text = SHIM.replace("{python}", sys.executable).replace("{forward}", str(tools / "forward.py"))
    shim.write_text(text.replace("{socket}", str(engine.socket)))
    shim.chmod(0o755)
    for name, source in IMAGES.items():
        engine.docker("tag", source, name)
    environ = os.environ | {
        "DOCKER_HOST": engine.host,
        "PODMAN": str(shim),
        "PATH": f"{tools}:{os.environ['PATH']}",
        "TMPDIR": str(engine.root / "tmp"),
    }
    outcomes: list[Outcome] = []
    for file in files:
        log = engine.root / f"{NAME}-{file}.log"
        with log.open("wb") as output:
            command = engine.inside(
                "timeout", "-k", "5", str(FILE_LIMIT), "bash", str(scripts / "test-apiv2"), file, cwd=scripts
            )
            subprocess.run(command, env=environ, stdout=output, stderr=output, timeout=FILE_LIMIT + 30)
        outcomes += read_tap(log.read_text(errors="replace"))
    with (engine.root / f"{NAME}.log").open("wb") as whole:
        for log in sorted(engine.root.glob(f"{NAME}-*.log")):
            whole.write(log.read_bytes())
    return Report(NAME, engine.kind, outcomes)


def read_tap(text: str) -> list[Outcome]:
    """One outcome per check that is not about podman's own API; a repeated name gets a number."""
    found: list[Outcome] = []
    seen: dict[str, int] = {}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        if match is None or "libpod/" in match[3].partition("[")[0]:
            continue
        name = re.sub(r"\b[0-9a-f]{12,64}\b", "ID", f"{match[2]}: {match[3]}")[:200]
        seen[name] = seen.get(name, 0) + 1
        name = name if seen[name] == 1 else f"{name} ({seen[name]})"
        if "# skip" in match[3]:
            found.append(Outcome(name, "skipped", "the request before it had another status"))
        elif match[1] == "ok":
            found.append(Outcome(name, "passed"))
        else:
            reason = " ".join(part[1:].strip() for part in lines[number + 1 : number + 4] if part.startswith("#"))
            found.append(Outcome(name, "failed", reason[:300]))
    return found
