"""The runtimes' error messages in one wording: runc's, which Docker's clients match. Pure.

The docker CLI exits with 127 when the start error contains "executable file not found" or "no such file or directory",
with 126 for "permission denied" or "is a directory", and with 125 otherwise. crun says the same things in other words.
"""

from __future__ import annotations

import re

_CRUN_MISSING = re.compile(r"executable file `([^`]*)` not found in \$PATH(?:: No such file or directory)?")
_CRUN_OPEN = re.compile(
    r"(?:open|exec) executable(?: `([^`]*)`)?: (Permission denied|Operation not permitted|Is a directory)", re.IGNORECASE
)
_CRUN_EXEC = re.compile(r"exec container process(?: \(([^)]*)\))? ?`([^`]*)`: (.*)")
_CRUN_MOUNT = re.compile(r"^mount `([^`]*)` to `/?([^`]*)`: (.*)", re.DOTALL)
_ERRNO_WORDS = (
    "No such file or directory", "Permission denied", "Is a directory", "Exec format error", "Not a directory",
)  # fmt: skip
_WRONG_KIND = (
    ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the "
    "expected type"
)
_MAX = 8 << 10


def translate(message: str, program: str = "") -> str:
    """One line in runc's wording; a long tail (a Go stack, a hook's output) is cut. ``program`` is put where a runtime
    does not name what it could not execute."""
    text = message.strip()[:_MAX]
    if found := _CRUN_MISSING.search(text):
        cause = f"stat {found[1]}: no such file or directory" if "/" in found[1] else "executable file not found in $PATH"
        return f'unable to start container process: exec: "{found[1]}": {cause}'
    if found := _CRUN_OPEN.search(text):
        cause = "permission denied" if found[2] == "Operation not permitted" else found[2].lower()
        return f'unable to start container process: exec: "{found[1] or program}": {cause}'
    if found := _CRUN_EXEC.search(text):
        return f"exec {found[2]}: {found[3].lower()}"
    if found := _CRUN_MOUNT.search(text):
        text = f'unable to start container process: error mounting "{found[1]}" to rootfs at "/{found[2]}": {found[3]}'
    for words in _ERRNO_WORDS:
        text = text.replace(words, words.lower())
    if "not a directory" in text and "mount" in text:
        text += _WRONG_KIND
    return text.removeprefix("runc: ")


def exit_code_for(message: str) -> int:
    """The exit code that Docker records for a container or an exec that could not be started."""
    if "executable file not found" in message or "no such file or directory" in message or _WRONG_KIND in message:
        return 127
    if "permission denied" in message or "is a directory" in message:
        return 126
    return 128
