"""A seccomp section compiled once, in place of once for each container.

The runtimes compile ``linux.seccomp`` at every create and exec: 15 to 25 ms of a processor for Docker's default profile on
three ABIs, more than all the rest that crun does. crun takes the finished program instead (its annotation
``run.oci.seccomp_bpf_data``), so libseccomp is asked here, once for each profile, and the result kept.

In front of libseccomp's program stands what runc puts there too: calls newer than all that the profile names are answered
with ENOSYS, so that a C library falls back to an older one, where the profile's own answer (EPERM) would end the program.
"""

from __future__ import annotations

import base64
import ctypes
import functools
import hashlib
import os
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dockyard.runtime import errors

ANNOTATION = "run.oci.seccomp_bpf_data"
LIBRARY = "libseccomp.so.2"
_ACTIONS = {
    "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_TRAP": 0x30000,
    "SCMP_ACT_ERRNO": 0x50000, "SCMP_ACT_TRACE": 0x7FF00000, "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_ALLOW": 0x7FFF0000,
}  # fmt: skip
_WITH_NUMBER = frozenset(("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"))
_PERMISSIVE = frozenset(("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"))
_COMPARE = {
    name: number
    for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)
}  # fmt: skip
_EPERM, _ENOSYS = 1, 38
_UNKNOWN = -1  # __NR_SCMP_ERROR
_X32, _X86_64, _X32_BIT = "SCMP_ARCH_X32", "SCMP_ARCH_X86_64", 0x40000000
_LOAD_NUMBER, _LOAD_ARCH = (0x20, 0), (0x20, 4)  # BPF_LD|BPF_W|BPF_ABS of seccomp_data.nr and .arch
_JUMP, _JEQ, _JGT, _JGE, _RETURN, _MARK = 0x05, 0x15, 0x25, 0x35, 0x06, -1
_HIGHEST = 0xFFFFFFFF
MAX_KNOWN = 64
"""Profiles kept; each differs by capabilities too. One is about 16 kB."""


class _Condition(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        found = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = [ctypes.c_uint32]
    found.seccomp_release.argtypes = [ctypes.c_void_p]
    found.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    found.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    found.seccomp_arch_native.restype = ctypes.c_uint32
    found.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p
    ]  # fmt: skip
    found.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return found


def can_compile(section: Mapping[str, Any]) -> bool:
    """Not where a supervisor is to be asked or flags are set: then the runtime must see the section itself."""
    special = section.get("listenerPath") or section.get("flags")
    actions = {section["defaultAction"], *(rule["action"] for rule in section.get("syscalls") or ())}
    return not special and actions <= set(_ACTIONS) and _library() is not None


def compile_filter(section: Mapping[str, Any]) -> bytes:
    """``struct sock_filter`` instructions for ``linux.seccomp``. Raises InvalidParameter where libseccomp refuses."""
    library = _library()
    assert library is not None, "can_compile was not asked"
    default = _action(section["defaultAction"], section.get("defaultErrnoRet"))
    context = library.seccomp_init(default)
    if not context:
        raise errors.INVALID(cause="Loading seccomp filter failed: seccomp_init refused the default action")
    try:
        tokens = {name: _token(library, name) for name in section.get("architectures") or ()}
        for token in tokens.values():
            if token != library.seccomp_arch_native():
                _must(library.seccomp_arch_add(context, token), "add an architecture")
        for rule in section.get("syscalls") or ():
            _add_rule(library, context, rule, default)
        program = _export(library, context)
    finally:
        library.seccomp_release(context)
    if section["defaultAction"] in _PERMISSIVE:
        return program
    return _unknown_calls(library, section, tokens) + program


def _token(library: ctypes.CDLL, name: str) -> int:
    token = int(library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode()))
    if token == 0:
        raise errors.INVALID(cause=f"Loading seccomp filter failed: unknown architecture {name}")
    return token


def _action(name: str, number: int | None) -> int:
    return _ACTIONS[name] | ((_EPERM if number is None else number) & 0xFFFF if name in _WITH_NUMBER else 0)


def _must(code: int, verb: str) -> None:
    if code < 0:
        raise errors.INVALID(cause=f"Loading seccomp filter failed: cannot {verb}: {os.strerror(-code)}")


def _add_rule(library: ctypes.CDLL, context: int, rule: Mapping[str, Any], default: int) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    sets = _condition_sets(rule.get("args") or ())
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name_arch(library.seccomp_arch_native(), name.encode())
        if number == _UNKNOWN:
            continue  # newer than this libseccomp: answered by what stands in front
        for conditions in sets:
            array = (_Condition * len(conditions))(*conditions)
            code = library.seccomp_rule_add_array(context, action, number, len(conditions), array)
            _must(code, f"add a rule for {name}")


def _condition_sets(args: Sequence[Mapping[str, Any]]) -> list[list[_Condition]]:
    """One set of conditions that all must hold; several on one argument mean that any may (as in runc)."""
    made = [
        _Condition(arg["index"], _COMPARE[arg["op"].removeprefix("SCMP_CMP_")], arg["value"], arg.get("valueTwo") or 0)
        for arg in args
    ]
    if len({each.arg for each in made}) < len(made):
        return [[each] for each in made]
    return [made]


def _export(library: ctypes.CDLL, context: int) -> bytes:
    file = os.memfd_create("seccomp")
    try:
        _must(library.seccomp_export_bpf(context, file), "export the program")
        return os.pread(file, os.fstat(file).st_size, 0)
    finally:
        os.close(file)


def _unknown_calls(library: ctypes.CDLL, section: Mapping[str, Any], tokens: Mapping[str, int]) -> bytes:
    """::

        load arch
        for each: if arch is not ours, skip; load number; if number > the newest named: ENOSYS, else: the program
        ENOSYS: return
    """
    names = {name.encode() for rule in section.get("syscalls") or () for name in rule["names"]}
    newest = {
        name: max((library.seccomp_syscall_resolve_name_arch(token, each) for each in names), default=_UNKNOWN)
        for name, token in (tokens or {"": library.seccomp_arch_native()}).items()
    }
    body: list[tuple[int, int, str, str]] = [(*_LOAD_ARCH, "", "")]  # (code, operand, label if true, label if false)
    for name, token in (tokens or {"": library.seccomp_arch_native()}).items():
        if name == _X32 or newest[name] < 0:
            continue
        body += [(_JEQ, token, "", f"no {name}"), (*_LOAD_NUMBER, "", "")]
        if name == _X86_64:  # x32 is the same architecture with a bit in the number
            body += [(_JGE, _X32_BIT, "x32", ""), (_JGT, newest[name], "enosys", "program")]
            body += [(_MARK, 0, "x32", ""), (_JGT, newest.get(_X32, _HIGHEST), "enosys", "program")]
        else:
            body.append((_JGT, newest[name], "enosys", "program"))
        body.append((_MARK, 0, f"no {name}", ""))
    # An architecture that nobody named is the program's to refuse.
    body += [(_JUMP, 1, "", ""), (_MARK, 0, "enosys", ""), (_RETURN, _ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS, "", "")]
    return _assemble([*body, (_MARK, 0, "program", "")])


def _assemble(body: Sequence[tuple[int, int, str, str]]) -> bytes:
    places: dict[str, int] = {}
    code: list[tuple[int, int, str, str]] = []
    for row in body:
        if row[0] == _MARK:
            places[row[2]] = len(code)
        else:
            code.append(row)
    out = bytearray()
    for number, (kind, operand, *labels) in enumerate(code):
        jumps = [places[label] - number - 1 if label else 0 for label in labels]
        out += struct.pack("<HBBI", kind, *jumps, operand)
    return bytes(out)


class FilterCache:
    """Specs for crun: the section replaced by its program, compiled once for each section."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, str] = OrderedDict()

    def compiled(self, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """``spec`` itself where there is nothing to compile. Raises InvalidParameter where libseccomp refuses."""
        section = spec["linux"].get("seccomp")
        if section is None:
            return spec
        if not can_compile(section):  # and then crun must not be told to ignore it
            annotations = {name: value for name, value in spec.get("annotations", {}).items() if name != ANNOTATION}
            return {**spec, "annotations": annotations}
        key = hashlib.sha256(msgspec.json.encode(section, order="deterministic")).digest()
        if key not in self._known:
            self._known[key] = base64.b64encode(compile_filter(section)).decode()
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        linux = {name: value for name, value in spec["linux"].items() if name != "seccomp"}
        return {**spec, "linux": linux, "annotations": {**spec.get("annotations", {}), ANNOTATION: self._known[key]}}
