"""A build directory as facts: the Dockerfile, the ignore file, and what a COPY would find. Nothing is built."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dockyard.doctor.facts import Facts, FileFact
from dockyard.kernel.binfmt import emulated, native

MAX_FILES = 200_000
MAX_DOCKERFILE = 1 << 20


def build_facts(directory: str) -> Facts:
    """Facts with only the section ``files``: keys "build:Dockerfile", "build:.dockerignore", "context:<path>", and
    "build:platforms" and "build:emulators" with those whose programs run here at all, and by an emulator, one a line."""
    root = Path(directory)
    files: dict[str, FileFact] = {}
    for name in ("Dockerfile", ".dockerignore"):
        try:
            data = (root / name).read_bytes()[:MAX_DOCKERFILE]
            files[f"build:{name}"] = FileFact(name, "file", size=len(data), head=data)
        except OSError:
            files[f"build:{name}"] = FileFact(name, error="ENOENT")
    for name, platforms in (("platforms", [*native(), *emulated()]), ("emulators", emulated())):
        files[f"build:{name}"] = FileFact(name, "list", head="\n".join(platforms).encode())
    count = 0
    for parent, directories, names in os.walk(root):
        directories.sort()
        for name in [*directories, *names]:
            full = os.path.join(parent, name)
            path = os.path.relpath(full, root)
            kind = "dir" if name in directories else "file"
            try:
                files[f"context:{path}"] = FileFact(path, kind, size=os.lstat(full).st_size if kind == "file" else 0)
            except OSError:
                continue
            count += 1
        if count > MAX_FILES:
            break
    reason = "only the build directory is looked at"
    missing = dict.fromkeys(
        ("engine", "containers", "networks", "volumes", "images", "events", "host", "host_net"), reason
    )
    return Facts(time.time(), files=files, missing=missing)
