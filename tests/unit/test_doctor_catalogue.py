"""The catalogue hides nothing: each row has an injector or a reason, and its page is that of the code. And what the doctor
reads of mounts that others cover.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dockyard.doctor.collect.host import read_disks
from dockyard.doctor.facts import Facts
from dockyard.doctor.faults.requests.refused import corrected
from dockyard.doctor.verbs.explain import matching, said_findings
from dockyard.doctor.watch import CROWDED, tracked

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench.faults import catalogue
from bench.faults.__main__ import FAMILIES, load

PAGE = Path(__file__).parents[2] / "docs" / "doctor-catalogue.md"


def test_every_row_has_an_injector_or_a_reason() -> None:
    assert catalogue.unexplained(load(FAMILIES)) == []


def test_no_reason_is_given_for_a_row_that_has_an_injector() -> None:
    assert catalogue.REASONS.keys() & {case.id for case in load(FAMILIES)} == set()


def test_the_page_is_that_of_the_code() -> None:
    fresh = catalogue.page(load([*FAMILIES, "pairs", "cascades"]))
    assert PAGE.read_text() == fresh, "python -m bench.faults --catalogue > docs/doctor-catalogue.md"


def test_a_covered_mount_is_not_taken_for_what_lies_there(tmp_path: Path) -> None:
    """A read-only layer below a path where something else is mounted now: only the device tells."""
    (tmp_path / "root" / "data").mkdir(parents=True)
    device = os.stat(tmp_path).st_dev
    real = f"{os.major(device)}:{os.minor(device)}"
    rows = [f"1 0 {real} / /data rw,relatime shared:1 - ext4 /dev/x rw", "2 1 0:99 / /data ro,nodev - erofs /layer ro,user_xattr"]
    (tmp_path / "mountinfo").write_text("\n".join(rows) + "\n")
    disks = read_disks(str(tmp_path / "root"), "/data")
    assert [(disk.path, disk.kind, disk.options) for disk in disks] == [("/data", "ext4", "rw,relatime")]


def test_a_crowded_connection_table_is_seen(tmp_path: Path) -> None:
    assert tracked(str(tmp_path)) == 0.0
    (tmp_path / "nf_conntrack_count").write_text("950\n")
    (tmp_path / "nf_conntrack_max").write_text("1000\n")
    assert tracked(str(tmp_path)) >= CROWDED


def test_names_are_corrected_by_the_grammar() -> None:
    wanted = {"Shop/App:1.0": "shop/app:1.0", "shop/:1.0": "shop:1.0", "shop//app": "shop/app", "shop/app:": "shop/app",
              "host:5000/Shop": "host:5000/shop", "shop/app:1.0": "shop/app:1.0"}  # fmt: skip
    assert {name: corrected(name) for name in wanted} == wanted


def test_a_message_is_answered_only_by_what_it_can_mean() -> None:
    text = 'docker run --name web\nConflict. The container name "/web" is already in use by container "' + "a" * 64 + '".'
    document = {"Id": "a" * 64, "Name": "/web", "State": {"Status": "exited", "ExitCode": 3}}
    found = said_findings(Facts(0.0, containers=[document], said=text), matching(text))
    assert [(item.id, item.object.name) for item in found] == []  # no engine answered: nothing can be said of this host
    from dockyard.doctor.facts import Engine

    found = said_findings(Facts(0.0, engine=Engine(reach="ok"), containers=[document], said=text), matching(text))
    assert [(item.id, item.object.name) for item in found] == [("CTR-19", "web")]
    fix = found[0].fix
    assert fix is not None
    assert (fix.commands, fix.undo, fix.machine) == (["docker rename web web-old"], ["docker rename web-old web"], True)
