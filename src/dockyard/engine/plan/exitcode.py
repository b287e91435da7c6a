"""Exit codes of what never ran, as the docker CLI and a shell give them."""

from __future__ import annotations


def exit_code_of(message: str) -> int:
    """126 or 127 as a shell would say, from the runtime's sentence; 128 for what has no such name."""
    if "executable file not found" in message or "no such file or directory" in message:
        return 127
    if "permission denied" in message or "is a directory" in message:
        return 126
    return 128
