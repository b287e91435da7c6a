"""Capabilities by name (capability(7), include/uapi/linux/capability.h)."""

from __future__ import annotations

_WORDS = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
NAMES = tuple(f"CAP_{word}" for word in _WORDS.split())
"""In the kernel's order: the index is the bit."""


def from_mask(mask: int) -> frozenset[str]:
    return frozenset(name for bit, name in enumerate(NAMES) if mask >> bit & 1)


def permitted() -> frozenset[str]:
    """What this process may use and pass on: permitted and bounding."""
    with open("/proc/self/status") as status:
        fields = dict(line.split(":\t", 1) for line in status if line.startswith("Cap"))
    return from_mask(int(fields["CapPrm"], 16) & int(fields["CapBnd"], 16))
