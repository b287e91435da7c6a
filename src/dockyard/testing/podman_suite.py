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
FILE_LIMIT = 120
"""Seconds for one file of requests."""
FIRST_PORT = 8081
"""Each file's own, in the engine's network namespace: the one before may still be closing."""
SOURCES = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
SHIM = """#!{python}
# podman, as far as the fixtures need it, in docker's words
import json, os, subprocess, sys

def docker(*words):
    os.execvp("docker", ["docker", *words])

words, given = [], iter(sys.argv[1:])
for word in given:
    if word in ("--root", "--runroot"):
        next(given)
    elif not word.startswith("--syslog="):
        words.append(json.loads(word)[0] if word.startswith('["') else word)
verb, noun = (*words, "", "")[:2]
if (verb, noun) == ("system", "service"):
    os.execv(sys.executable, [sys.executable, "{forward}", words[-1], "{socket}"])
if (verb, noun) in (("rm", "-a"), ("container", "rm")):
    ids = subprocess.run(["docker", "ps", "-aq"], capture_output=True, text=True).stdout.split()
    if ids:
        docker("rm", "-f", "-v", *ids)
elif verb in ("pod", "manifest", "generate", "init") or (verb, noun) in (("rmi", "-a"), ("rmi", "-af"), ("system", "connection")):
    sys.exit(0)
elif verb == "pull" and not subprocess.run(["docker", "image", "inspect", words[-1]], capture_output=True).returncode:
    sys.exit(0)
elif (verb, noun) == ("image", "build"):
    docker(*words[1:])
elif verb == "untag":
    docker("rmi", *words[1:])
elif verb == "run" and "--replace" in words:
    words.remove("--replace")
    subprocess.run(["docker", "rm", "-f", words[words.index("--name") + 1]], capture_output=True)
if words[:1] != ["rm"] or words[1:2] != ["-a"]:
    docker(*words)
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
    for port, file in enumerate(files, FIRST_PORT):
        log = engine.root / f"{NAME}-{file}.log"
        with log.open("wb") as output:
            command = engine.inside(
                "timeout", "-k", "5", str(FILE_LIMIT), "bash", str(scripts / "test-apiv2"), file, cwd=scripts
            )
            subprocess.run(
                command,
                env=environ | {"PODMAN_SERVICE_PORT": str(port)},
                stdout=output,
                stderr=output,
                timeout=FILE_LIMIT + 30,
            )
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
