"""Builds: the context and the Dockerfile, asked by ``dockyard doctor build DIR`` or by the message."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from typing import Any

from bench.faults.case import Case, Step
from bench.faults.cases_refused import explained
from bench.faults.cases_start import elf
from bench.faults.lab import IMAGE, Lab
from dockyard.doctor.collect.build import build_facts
from dockyard.doctor.examine import examine
from dockyard.doctor.faults import all_rules
from dockyard.doctor.finding import Report
from dockyard.errors import DockyardError

BIG = 600 << 20


def directory(**files: str) -> Step:
    """The build directory with these files; ``__`` in a name stands for a dot."""

    def step(lab: Lab) -> None:
        where = lab.root / "build"
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir()
        for name, text in files.items():
            (where / name.replace("__", ".")).write_text(text.replace("IMAGE", IMAGE))
        lab.vars["build"] = where

    return step


def builds(lab: Lab) -> bool:
    """Does the engine build it? The client leaves out what .dockerignore says, as every client does."""
    where, buffer = lab.vars["build"], io.BytesIO()
    ignored = (where / ".dockerignore").read_text().split() if (where / ".dockerignore").exists() else []
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in where.iterdir():
            if path.name not in ignored:
                tar.add(path, path.name)
    try:
        answer = list(lab.client.objects("POST", "/build", {"t": "built:latest", "rm": "1"}, buffer.getvalue(), timeout=15))
    except DockyardError as error:
        lab.vars["error"] = error.message
        return False
    said = [str(row.get("error") or row.get("stream") or "") for row in answer]
    lab.vars["error"] = re.sub(r"\x1b\[\d+m", "", "".join(said[-8:]))
    return not any("error" in row for row in answer)


def about_build(lab: Lab) -> Report:
    return examine(build_facts(str(lab.vars["build"])), all_rules())


def small(lab: Lab) -> bool:
    """Is what a build would send small?"""
    return sum(path.stat().st_size for path in lab.vars["build"].iterdir()) < BIG


def _grow(lab: Lab) -> None:
    with open(lab.vars["build"] / "dump.bin", "wb") as file:
        file.truncate(BIG)  # sparse: no disk is used


def _shrink(lab: Lab) -> None:
    (lab.vars["build"] / "dump.bin").unlink()


def build(label: str, rule: str, name: str, good: dict[str, str], bad: dict[str, str], **more: Any) -> Case:
    return Case(rule, name, directory(**good), builds, directory(**bad), directory(**good), name=label,
                **{"diagnose": about_build, **more})  # fmt: skip


def _other_cpu(lab: Lab) -> None:
    """An image whose programs are for arm64; its label of the platform says so."""
    lab.load_image("foreign:latest", {"bin/busybox": (elf(machine=183), 0o755)}, platform="linux/arm64")
    directory(Dockerfile="FROM --platform=linux/arm64 foreign\nRUN true\n")(lab)


_COPY = {"Dockerfile": "FROM IMAGE\nCOPY app.conf /etc/\n", "app__conf": "x\n"}
_RUN = {"Dockerfile": "FROM IMAGE\nRUN true\n"}
CASES = [
    build("BLD-01/ignored", "BLD-01", "app.conf", _COPY, {**_COPY, "__dockerignore": "app.conf\n"}),
    build("BLD-01/case", "BLD-01", "app.conf", _COPY, {"Dockerfile": _COPY["Dockerfile"], "App__conf": "x\n"}),
    build("BLD-01/outside", "BLD-01", "../app.conf", _COPY, {**_COPY, "Dockerfile": "FROM IMAGE\nCOPY ../app.conf /etc/\n"},
          engines=("dockerd",)),  # Dockyard, as BuildKit, takes it from the top of the context
    Case("BLD-02", "", directory(**_COPY), small, _grow, _shrink, diagnose=about_build),
    Case("BLD-06", "line 2", directory(**_RUN), builds, _other_cpu, directory(**_RUN), diagnose=about_build),
    build("BLD-04", "BLD-04", "RUN", _RUN, {"Dockerfile": "FROM IMAGE\nRUN nothere --flag\n"}, diagnose=explained),
]
