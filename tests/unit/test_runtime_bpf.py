"""The compiled filter is run by a small interpreter and compared with what the profile says."""

from __future__ import annotations

import base64
import ctypes
import struct
from typing import Any

import pytest

from dockyard.runtime import bpf
from dockyard.runtime.security import DEFAULT_CAPABILITIES, SecurityOptions, plan_seccomp

pytestmark = pytest.mark.skipif(bpf._library() is None, reason="libseccomp is not installed")

X86_64, I386, ARM64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x50026, 0
X32 = 0x40000000


def run(program: bytes, arch: int, number: int, *args: int) -> int:
    """Classic BPF over struct seccomp_data (seccomp(2)); jumps are relative to the next instruction."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *(*args, *(0,) * (6 - len(args))))
    at, a = 0, 0
    code = [struct.unpack_from("<HBBI", program, position) for position in range(0, len(program), 8)]
    while True:
        kind, true, false, k = code[at]
        at += 1
        if kind == 0x20:
            a = struct.unpack_from("<I", data, k)[0]
        elif kind == 0x06:
            return k
        elif kind == 0x05:
            at += k
        elif kind == 0x54:
            a &= k
        else:
            holds = {0x15: a == k, 0x25: a > k, 0x35: a >= k, 0x45: bool(a & k)}[kind]
            at += true if holds else false


def number_of(name: str, arch: str = "x86_64") -> int:
    library = bpf._library()
    assert library is not None
    token = library.seccomp_arch_resolve_name(arch.encode())
    return int(library.seccomp_syscall_resolve_name_arch(token, name.encode()))


@pytest.fixture(scope="module")
def default() -> dict[str, Any]:
    found = plan_seccomp(
        SecurityOptions(), privileged=False, arch="amd64", kernel=(6, 1), capabilities=list(DEFAULT_CAPABILITIES)
    )
    assert found is not None
    return found


def test_every_call_of_the_default_profile_has_the_answer_that_its_rules_give(default: dict[str, Any]) -> None:
    program = bpf.compile_filter(default)
    always = {name for rule in default["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
              for name in rule["names"]}  # fmt: skip
    sometimes = {name for rule in default["syscalls"] if rule.get("args") for name in rule["names"]}
    other = {name for rule in default["syscalls"] if rule["action"] != "SCMP_ACT_ALLOW" for name in rule["names"]}
    numbers = {number_of(name): name for name in always | sometimes | other}
    newest = max(numbers)
    for number in range(600):
        name = numbers.get(number, "")
        if name in sometimes | other:
            continue
        wanted = ALLOW if name else EPERM if number <= newest else ENOSYS
        assert run(program, X86_64, number) == wanted, (number, name)


def test_other_abis_of_the_same_processor(default: dict[str, Any]) -> None:
    program = bpf.compile_filter(default)
    assert run(program, I386, number_of("read", "x86")) == ALLOW
    assert run(program, I386, number_of("reboot", "x86")) == EPERM
    assert run(program, I386, 5000) == ENOSYS
    assert run(program, X86_64, X32 | 0) == ALLOW
    assert run(program, X86_64, X32 | 5000) == ENOSYS
    assert run(program, ARM64, 63) == KILL, "an architecture that the profile does not name"


def test_arguments_decide(default: dict[str, Any]) -> None:
    program = bpf.compile_filter(default)
    clone, personality, socket = (number_of(name) for name in ("clone", "personality", "socket"))
    new_user = 0x10000000
    assert run(program, X86_64, clone, 0x11) == ALLOW
    assert run(program, X86_64, clone, new_user) == EPERM
    assert run(program, X86_64, number_of("clone3")) == ENOSYS
    assert run(program, X86_64, personality, 0) == ALLOW
    assert run(program, X86_64, personality, 0xFFFFFFFF) == ALLOW
    assert run(program, X86_64, personality, 0x1234) == EPERM
    assert run(program, X86_64, socket, 2) == ALLOW
    assert run(program, X86_64, socket, 40) == EPERM, "AF_VSOCK"


def test_several_conditions_on_one_argument_are_alternatives() -> None:
    args = [{"index": 0, "op": "SCMP_CMP_EQ", "value": value} for value in (3, 5)]
    section = {
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["close"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9, "args": args}],
    }  # fmt: skip
    program = bpf.compile_filter(section)
    answers = [run(program, X86_64, number_of("close"), value) for value in (3, 4, 5)]
    assert answers == [0x50009, ALLOW, 0x50009]
    assert run(program, X86_64, 5000) == ALLOW, "a permissive default is left as it is"


def test_a_profile_without_rules_refuses_everything() -> None:
    program = bpf.compile_filter({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"]})
    assert run(program, X86_64, 0) == EPERM


def test_what_the_runtime_must_see_itself_is_left_to_it(default: dict[str, Any]) -> None:
    notify = default | {"syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]}
    assert not bpf.can_compile(notify)
    assert not bpf.can_compile(default | {"flags": ["SECCOMP_FILTER_FLAG_LOG"]})
    assert bpf.can_compile(default)


def test_the_program_goes_into_an_annotation_and_is_compiled_once(
    default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, calls = bpf.FilterCache(), []
    compile_filter = bpf.compile_filter
    monkeypatch.setattr(bpf, "compile_filter", lambda section: calls.append(1) or compile_filter(section))
    spec = {"linux": {"seccomp": default, "namespaces": []}, "annotations": {"a": "b", bpf.ANNOTATION: "AA=="}}
    for _ in range(3):
        made = cache.compiled(spec)
    assert len(calls) == 1
    assert "seccomp" not in made["linux"]
    assert made["annotations"]["a"] == "b"
    assert base64.b64decode(made["annotations"][bpf.ANNOTATION]) == compile_filter(default)
    assert spec["linux"]["seccomp"] is default, "the plan is not touched"


def test_an_unconfined_container_keeps_its_spec() -> None:
    spec = {"linux": {"namespaces": []}}
    assert bpf.FilterCache().compiled(spec) is spec


def test_condition_matches_libseccomps_layout() -> None:
    assert ctypes.sizeof(bpf._Condition) == 24
