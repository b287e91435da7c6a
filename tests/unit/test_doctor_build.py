"""A Dockerfile's stages for other CPUs: named only where nothing here runs their programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockyard.doctor.collect.build import build_facts
from dockyard.doctor.examine import examine
from dockyard.doctor.facts import FileFact
from dockyard.doctor.faults import all_rules
from dockyard.kernel.binfmt import native


@pytest.mark.parametrize(
    ("platform", "run", "emulators", "found"),
    [
        ("linux/arm64", "RUN true", (), True),
        ("linux/arm64/v8", "RUN true", (), True),
        ("linux/arm64", "RUN true", ("linux/arm64",), False),
        ("linux/arm/v7", "RUN true", ("linux/arm64",), True),
        ("linux/arm64", "COPY Dockerfile /", (), False),
        ("linux/amd64", "RUN true", (), False),
        ("linux/386", "RUN true", (), False),
        ("$BUILDPLATFORM", "RUN true", (), False),
    ],
)
def test_a_foreign_stage_that_runs_something(
    tmp_path: Path, platform: str, run: str, emulators: tuple[str, ...], found: bool
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM --platform={platform} debian\n{run}\n")
    facts = build_facts(str(tmp_path))
    assert facts.files["build:platforms"].head.decode().startswith(native()[0])
    for name, platforms in (("platforms", (*native("x86_64"), *emulators)), ("emulators", emulators)):
        facts.files[f"build:{name}"] = FileFact(name, "list", head="\n".join(platforms).encode())
    report = examine(facts, all_rules())
    assert [item.id for item in report.findings] == (["BLD-06"] if found else [])
