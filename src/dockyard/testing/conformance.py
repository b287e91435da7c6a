"""Runs a suite that others wrote against a private engine and keeps the outcome: ``python -m dockyard.testing.conformance``.

The engine finds the images that the suites ask for in itself, and in a registry inside its network namespace that goes by
docker.io's name: pulls work, and unknown images are unknown, with no way out of this machine. Results are files below
tests/conformance/results, one per suite and engine, from which ``make scoreboard`` draws docs/scoreboard.md.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import ansible_suite, kit, podman_suite
from .engines import KINDS, PrivateEngine, private_engine
from .registries import debian_registry, make_certificate
from .suites import CACHE, SUITES, Outcome, Report, run_suite

OTHERS = {suite.NAME: suite.run for suite in (podman_suite, ansible_suite)}
"""Suites with a runner of their own."""
RESULTS = Path(__file__).resolve().parents[3] / "tests/conformance/results"
HUB, HUB_NAMES = "registry-1.docker.io", ("registry-1.docker.io", "index.docker.io", "auth.docker.io")
PUSH_LIMIT = 60.0
"""Seconds until the registry must have taken an image."""


@contextlib.contextmanager
def stocked_engine(kind: str, root: Path, *, python: bool = False) -> Iterator[PrivateEngine]:
    """A private engine with the kit's images loaded, and a docker.io of its own that has them too."""
    root.mkdir(parents=True, exist_ok=True)
    certificate = make_certificate(root / "hub-certificate", *HUB_NAMES)
    trust = {"SSL_CERT_FILE": str(certificate.cert)}
    made_by = hashlib.sha256(Path(kit.__file__).read_bytes()).hexdigest()[:12]
    archive = kit.archive(CACHE / f"kit-{'python-' if python else ''}{made_by}.tar", python=python)
    names = (*kit.BUSYBOX_NAMES, "hello-world:latest", *((*kit.PYTHON_NAMES, *kit.REGISTRY_NAMES) if python else ()))
    with (
        private_engine(kind, root, local_names=HUB_NAMES, environ=trust) as engine,
        debian_registry(root / "hub", port=443, tls=certificate, inside=engine.inside),
    ):
        _docker(engine, "load", "-q", "-i", str(archive))
        for name in names:
            _push(engine, name)
        yield engine


def _docker(engine: PrivateEngine, *words: str) -> None:
    done = engine.docker(*words)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(words)}: {done.stderr.strip()}")


def _push(engine: PrivateEngine, name: str) -> None:
    end = time.monotonic() + PUSH_LIMIT
    while (done := engine.docker("push", "-q", name)).returncode:
        if time.monotonic() > end:
            raise RuntimeError(f"docker push {name}: {done.stderr.strip()}")
        time.sleep(0.2)  # the registry is a real process that is starting; bounded by PUSH_LIMIT


def result_file(suite: str, engine: str) -> Path:
    return RESULTS / f"{suite}-{engine}.json"


def save(report: Report, file: Path) -> None:
    """One line per test, so that a difference between two runs can be read."""
    rows = sorted(report.outcomes, key=lambda outcome: outcome.test)
    head = {"suite": report.suite, "engine": report.engine, "machine": _machine(), "date": time.strftime("%F")}
    lines = ",\n".join(json.dumps([row.test, row.result, row.reason]) for row in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(head)[:-1] + f', "outcomes": [\n{lines}\n]}}\n')


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return f"Linux {'.'.join(platform.release().split('.')[:2])}, {os.cpu_count()} CPUs, {memory} GB"


def load(file: Path) -> Report:
    document = json.loads(file.read_text())
    return Report(document["suite"], document["engine"], [Outcome(*row) for row in document["outcomes"]])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dockyard.testing.conformance", description=__doc__)
    parser.add_argument("suites", nargs="*", choices=[[], *SUITES, *OTHERS], help="which (default: all)")
    parser.add_argument("--engine", action="append", choices=KINDS, help="default: dockyard")
    parser.add_argument("-k", dest="only", default="", help="only tests that match (pytest's -k); saves nothing")
    parser.add_argument("--logs", type=Path, help="directory that keeps the suite's and the engine's output")
    options = parser.parse_args(arguments)
    for kind in options.engine or ["dockyard"]:
        for name in options.suites or (*SUITES, *OTHERS):
            report = _run(name, kind, options.only, options.logs)
            counts = report.count()
            print(f"{name} on {kind}: {dict(counts)}, {report.rate:.1%} of what ran passed", flush=True)
            for outcome in report.outcomes:
                if outcome.result == "failed":
                    print(f"  {outcome.test}: {outcome.reason}", flush=True)
            if not options.only:
                save(report, result_file(name, kind))
    return 0


def _run(name: str, kind: str, only: str, logs: Path | None) -> Report:
    suite = SUITES.get(name)
    with tempfile.TemporaryDirectory(prefix="dy-conf-") as folder:
        root = Path(folder) / "e"
        with stocked_engine(kind, root, python=suite is not None and suite.python) as engine:
            for image in suite.images if suite else ():
                _docker(engine, "tag", "busybox:latest", image)
                _push(engine, image)
            try:
                return OTHERS[name](engine) if suite is None else run_suite(suite, engine, only=only)
            finally:
                if logs:
                    logs.mkdir(parents=True, exist_ok=True)
                    for file in (engine.log, root / f"{name}.log"):
                        if file.exists():
                            (logs / f"{name}-{kind}-{file.name}").write_bytes(file.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
