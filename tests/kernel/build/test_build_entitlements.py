"""RUN --security=insecure and the limit of the cache, as an administrator sets them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.testing import kit
from dockyard.testing.engines import private_engine

from .conftest import BuildClient
from .test_dockyard_build_session import dockyard, write

pytestmark = pytest.mark.root
LIMIT = 3 << 20
SETTINGS = {"builder": {"entitlements": {"security-insecure": True}, "gc": {"enabled": True, "defaultKeepStorage": "3MB"}}}


@pytest.fixture(scope="module")
def generous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildClient]:
    root = tmp_path_factory.mktemp("generous")
    with private_engine("dockyard", root / "engine", settings=SETTINGS) as engine:
        made = BuildClient(engine)
        list(made.client.objects("POST", "/images/load", body=kit.archive(root / "kit.tar").read_bytes()))
        yield made
        made.client.close()


def test_an_insecure_step_needs_the_administrator_and_the_client(
    generous: BuildClient, builder: BuildClient, tmp_path: Path
) -> None:
    place = write(tmp_path / "c", Dockerfile="FROM busybox\nRUN --security=insecure mount -t tmpfs none /mnt && echo mounted\n")
    granted = dockyard(generous, "--allow", "security.insecure", "--progress", "plain", place)
    assert granted.returncode == 0, granted.stderr
    assert b"mounted" in granted.stdout
    for engine, words in ((generous, ("--allow", "network.host")), (builder, ("--allow", "security.insecure"))):
        refused = dockyard(engine, *words, "--no-cache", place)
        assert refused.returncode == 1
        assert b"security.insecure is not allowed" in refused.stderr
    plain = dockyard(generous, "-f", "-", "--no-cache", str(tmp_path / "c"), stdin=b"FROM busybox\nRUN mount -t tmpfs none /mnt\n")
    assert plain.returncode == 1, "other steps have no more rights for it"


def test_imported_caches_are_held_to_the_limit(generous: BuildClient, tmp_path: Path) -> None:
    """Five layers of a megabyte each come from a cache; three may stay."""
    text = "".join(f"FROM busybox AS s{n}\nCOPY f{n} /f\n" for n in range(5)) + "FROM scratch\n"
    text += "".join(f"COPY --from=s{n} /f /f{n}\n" for n in range(5))
    place = Path(write(tmp_path / "c", Dockerfile=text))
    for number in range(5):
        (place / f"f{number}").write_bytes(os.urandom(1 << 20))
    first = dockyard(generous, "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max", "-o", f"{tmp_path}/out", str(place))
    assert first.returncode == 0, first.stderr
    second = dockyard(generous, "--cache-from", f"type=local,src={tmp_path}/cache", "-o", f"{tmp_path}/out", str(place))
    assert second.returncode == 0, second.stderr
    deadline = time.monotonic() + 20
    while (size := generous.client.request("GET", "/system/df")["BuilderSize"]) > LIMIT and time.monotonic() < deadline:
        time.sleep(0.1)  # the limit is kept after the build's answer
    assert size <= LIMIT
