"""Seccomp against Docker's published profile; users, signals, detach keys."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dockyard.errors import InvalidParameter
from dockyard.runtime.detach import DetachKeys, parse_detach_keys
from dockyard.runtime.seccomp import filter_profile
from dockyard.runtime.seccomp_profile import default_profile
from dockyard.runtime.signals import parse_signal
from dockyard.runtime.users import User, decide, read_etc, resolve

SPECS = Path(os.environ.get("DOCKYARD_SPECS") or Path(__file__).parents[2] / "../shared/specs")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n1000:x:7:7::/odd:/bin/sh\nbroken\n"
GROUP = "root:x:0:\nweb:x:33:\nadm:x:4:web,root\n"


def canonical(profile) -> list[str]:
    def sort(value):
        if isinstance(value, dict):
            return {key: sort(item) for key, item in sorted(value.items()) if key != "comment" and item}
        if isinstance(value, list):
            return sorted((sort(item) for item in value), key=json.dumps)
        return value

    # one name a row, so that the grouping of names plays no part; zero stays, it is an argument's value
    rows = [{**rule, "names": [name]} for rule in profile["syscalls"] for name in rule["names"]]
    for row in rows:
        row["args"] = [json.dumps(arg, sort_keys=True) for arg in row.get("args") or ()]
    return sorted(json.dumps(sort(row), sort_keys=True) for row in rows)


def test_default_profile_is_dockers():
    path = SPECS / "seccomp/default.json"
    if not path.exists():
        pytest.skip(f"specification data is absent: {path}")
    reference, own = json.loads(path.read_text()), default_profile()
    assert canonical(own) == canonical(reference)
    assert (own["defaultAction"], own["defaultErrnoRet"]) == (reference["defaultAction"], reference["defaultErrnoRet"])
    arches = {row["architecture"]: row["subArchitectures"] or [] for row in reference["archMap"]}
    assert {row["architecture"]: row["subArchitectures"] for row in own["archMap"]} == arches


def names(profile, action="SCMP_ACT_ALLOW"):
    return {name for rule in profile["syscalls"] if rule["action"] == action for name in rule["names"]}


def test_capabilities_open_system_calls():
    plain = filter_profile(None, arch="amd64", kernel=(6, 1), capabilities=())
    admin = filter_profile(None, arch="amd64", kernel=(6, 1), capabilities=("CAP_SYS_ADMIN",))
    assert "mount" not in names(plain)
    assert "mount" in names(admin)
    assert "clone3" in names(plain, "SCMP_ACT_ERRNO")
    assert "clone3" in names(admin)
    assert "arch_prctl" in names(plain)
    assert "arm_sync_file_range" not in names(plain)
    assert "io_uring_setup" not in names(admin)
    assert plain["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert "ptrace" not in names(filter_profile(None, arch="amd64", kernel=(4, 4), capabilities=()))


@pytest.mark.parametrize(
    ("spec", "user"),
    [
        ("", User(0, 0, (4,), "/root")),
        ("web", User(33, 33, (4,), "/srv")),
        ("33", User(33, 33, (4,), "/srv")),
        ("web:adm", User(33, 4, (), "/srv")),
        ("1000", User(1000, 0, (), "/")),  # a number is never an account's name
        ("5000:7", User(5000, 7, (), "/")),
    ],
)
def test_users(spec, user):
    assert decide(PASSWD, GROUP, spec) == user


def test_groups_are_added_by_name_and_number():
    assert decide(PASSWD, GROUP, "web", ["33", "adm", "99"]).groups == (4, 33, 99)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("0:none", "unable to find group none: no matching entries in group file"),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
        ("-1", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_unknown_users(spec, sentence):
    with pytest.raises(InvalidParameter, match=sentence):
        decide(PASSWD, GROUP, spec)


def test_links_in_etc_lead_nowhere_outside(tmp_path):
    (tmp_path / "secret").write_text(PASSWD)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "etc/group")
    root = os.open(tmp_path, os.O_PATH)
    try:
        assert read_etc(root, "passwd") == read_etc(root, "group") == ""
        assert resolve(root, "7") == User(7)
    finally:
        os.close(root)


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGKILL", 9), ("kill", 9), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63), ("sigusr1", 10), ("34", 34)],
)
def test_signals(text, number):
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGFOO", "-9", "9.0", "RTMIN+99", "99999999999"])
def test_invalid_signals(text):
    with pytest.raises(InvalidParameter, match="Invalid signal: "):
        parse_signal(text)


def test_detach_keys_are_parsed():
    assert parse_detach_keys("") == b"\x10\x11"
    assert parse_detach_keys("a,ctrl-@,ctrl-_") == b"a\x00\x1f"
    with pytest.raises(InvalidParameter, match="Invalid detach keys"):
        parse_detach_keys("ctrl-1")


@pytest.mark.parametrize(
    ("pieces", "passed", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10", b"\x11rest"], b"a", True),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10", b"x"], b"\x10x", False),
    ],
)
def test_detach_keys_are_found_across_pieces(pieces, passed, detached):
    scanner = DetachKeys(b"\x10\x11")
    results = [scanner.feed(piece) for piece in pieces]
    assert b"".join(out for out, _ in results) == passed
    assert results[-1][1] is detached


def test_detach_keys_that_overlap_themselves():
    scanner = DetachKeys(b"aab")
    assert scanner.feed(b"aaab") == (b"a", True)
    assert DetachKeys(b"aab").feed(b"aac") == (b"aac", False)
