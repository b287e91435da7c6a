"""From a refusal to the command to type next. Pure: the daemon's sentence is all that is looked at."""

from __future__ import annotations

_HINTS = (
    ("No such container", "dockyard ps -a"),
    ("is already in use by container", "dockyard rm NAME, or another --name"),
    ("No such image", "dockyard images, or dockyard pull NAME"),
    ("no such volume", "dockyard volume ls"),
    ("volume is in use", "dockyard ps -a --filter volume=NAME"),
    ("network", "dockyard network ls"),
    ("container is running", "dockyard stop NAME, or dockyard rm -f NAME"),
    ("is not running", "dockyard start NAME"),
    ("is paused", "dockyard unpause NAME"),
    ("port is already allocated", "dockyard ps --filter publish=PORT"),
    ("address already in use", "dockyard doctor"),
    ("Cannot connect", "dockyard doctor"),
    ("permission denied while trying to connect", "sudo, or join the group of the socket"),
    ("unauthorized", "dockyard login"),
    ("denied", "dockyard login"),
    ("executable file not found", "dockyard run -it --entrypoint sh IMAGE"),
    ("no space left", "dockyard system df"),
)


def next_command(message: str) -> str:
    """What helps after this message; "" when nothing is known."""
    return next((command for text, command in _HINTS if text in message), "")
