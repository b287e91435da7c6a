"""The Debian recipe of bootstrap: mmdebstrap from the mirror that the host itself uses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import CANNOT_BOOTSTRAP, UNKNOWN_BOOTSTRAP

TIMEOUT = 900.0
PATH_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
SECURITY_MIRROR = "http://deb.debian.org/debian-security"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SLIM_EXCLUDES = (
    "path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/lintian/*", "path-exclude=/usr/share/linda/*",
    "path-exclude=/usr/share/locale/*", "path-include=/usr/share/locale/locale.alias", "path-exclude=/usr/share/man/*",
)  # fmt: skip
CLEAN_HOOK = (
    'rm -rf "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/* "$1"/etc/hostname "$1"/etc/resolv.conf '
    '"$1"/etc/apt/sources.list "$1"/var/log/* "$1"/etc/machine-id "$1"/var/cache/ldconfig/aux-cache'
)
APT_FILES = {
    "docker-clean": "".join(
        f'{stage}::Post-Invoke {{ "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb '
        '/var/cache/apt/*.bin || true"; };\n' for stage in ("DPkg", "APT::Update")
    ) + 'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n',
    "docker-gzip-indexes": 'Acquire::GzipIndexes "true";\n',
    "docker-no-languages": 'Acquire::Languages "none";\n',
    "docker-autoremove-suggests": 'Apt::AutoRemove::SuggestsImportant "false";\n',
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """What makes the layer, and the container config of the image. ``key`` names it in the cache."""

    key: str
    config: dict[str, object]
    created_by: str


def architecture() -> str:
    """The machine's name as Go spells it."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}.get(machine, machine)


def debian_recipe(tag: str) -> tuple[Callable[[Path], object], Recipe]:
    suite, _, variant = tag.partition("-")
    if not suite.isalpha() or variant not in ("", "slim"):
        raise UNKNOWN_BOOTSTRAP(name=f"debian:{tag}")
    if shutil.which("mmdebstrap") is None:
        raise CANNOT_BOOTSTRAP(name=f"debian:{tag}", cause="mmdebstrap is missing (package mmdebstrap)")
    config: dict[str, object] = {"Env": [PATH_ENV], "Cmd": ["bash"]}
    recipe = Recipe(f"debian-{tag}-{architecture()}-1", config, f"mmdebstrap --variant=minbase {suite}")
    return (lambda path: make_debian(path, suite, slim=bool(variant))), recipe


def make_debian(target: Path, suite: str, *, slim: bool) -> None:
    """Write the root file system as a tar (thread; minutes without a near mirror). Raises Unavailable."""
    release = "stable" if suite == "latest" else suite
    with tempfile.TemporaryDirectory(prefix="dockyard-debian-") as scratch:
        extra = Path(scratch) / "extra"
        _write_apt_files(extra, release)
        command = [
            "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=tar", "--skip=output/dev",
            *(f"--dpkgopt={line}" for line in (SLIM_EXCLUDES if slim else ())),
            f"--customize-hook={CLEAN_HOOK}", f"--customize-hook=sync-in {extra} /", release, str(target),
            *host_sources(release),
        ]  # fmt: skip
        # Times later than this become it: the tar of one day's archive is the same all day.
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(int(time.time()) // 86400 * 86400), "LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False, cwd=scratch
            )
        except subprocess.TimeoutExpired:
            raise CANNOT_BOOTSTRAP(name=f"debian:{suite}", cause=f"no end after {TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.strip().splitlines() if line.startswith("E:")] or ["mmdebstrap failed"]
        raise CANNOT_BOOTSTRAP(name=f"debian:{suite}", cause=lines[-1].removeprefix("E: "))


def _write_apt_files(extra: Path, release: str) -> None:
    conf, sources = extra / "etc/apt/apt.conf.d", extra / "etc/apt/sources.list.d"
    conf.mkdir(parents=True)
    sources.mkdir(parents=True)
    for name, text in APT_FILES.items():
        (conf / name).write_text(text)
    rows = [(DEFAULT_MIRROR, f"{release} {release}-updates"), (SECURITY_MIRROR, f"{release}-security")]
    (sources / "debian.sources").write_text("\n".join(
        f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n" for uri, suites in rows
    ))  # fmt: skip


def host_sources(release: str, apt: Path = Path("/etc/apt")) -> list[str]:
    """One-line sources for the release from what the host is configured with; Debian's own where it has none."""
    found = [
        f"deb {uri} {suite} main"
        for uri, suite in _configured(apt)
        if suite in (release, f"{release}-updates", f"{release}-security")
    ]
    base = any(line.split()[2] == release for line in found)
    lines = found if base else [f"deb {DEFAULT_MIRROR} {release} main"]
    return list(dict.fromkeys(lines))


def _configured(apt: Path) -> Iterator[tuple[str, str]]:
    """(URI, suite) pairs of both syntaxes of sources.list(5)."""
    files = sorted(apt.glob("sources.list.d/*"))
    for path in [apt / "sources.list", *files]:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".sources":
            yield from _stanzas(text)
        elif path.suffix == ".list":
            for line in text.splitlines():
                match = re.match(r"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s", line)
                if match:
                    yield match[1], match[2]


def _stanzas(text: str) -> Iterator[tuple[str, str]]:
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        for line in stanza.splitlines():
            key, colon, value = line.partition(":")
            if colon and not line.startswith(("#", " ", "\t")):
                fields[key.strip().lower()] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() != "no":
            for uri in fields.get("uris", "").split():
                for suite in fields.get("suites", "").split():
                    yield uri, suite
