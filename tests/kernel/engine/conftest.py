"""What the tests of the whole engine share: a directory that any user may pass, and the kit's images."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.testing import kit


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Below /tmp: pytest's own directories are closed to other users, and so to a remapped root."""
    made = Path(tempfile.mkdtemp(prefix="du-", dir="/tmp"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def archive(folder: Path) -> Path:
    return kit.archive(folder / "kit.tar")
