"""From a refusal to the command to type next. Pure: the daemon's sentence is all that is looked at."""

from __future__ import annotations

_HINTS = (
    ("permission denied while trying to connect", "sudo, or join the group of the socket"),
    ("Cannot connect", "dockyard doctor"),
    ("No such container", "dockyard ps -a"),
    ("is already in use by container", "dockyard rm NAME, or another --name"),
    ("No such image", "dockyard images, or dockyard pull NAME"),
    ("no such volume", "dockyard volume ls"),
    ("volume is in use", "dockyard ps -a --filter volume=NAME"),
    ("is not connected to network", "dockyard inspect -f '{{json .NetworkSettings.Networks}}' NAME"),
    ("network with name", "dockyard network ls"),
    ("container is running", "dockyard stop NAME, or dockyard rm -f NAME"),
    ("is not running", "dockyard start NAME"),
    ("is paused", "dockyard unpause NAME"),
    ("port is already allocated", "dockyard ps --filter publish=PORT"),
    ("address already in use", "dockyard doctor"),
    ("unauthorized", "dockyard login SERVER"),
    ("access denied", "dockyard login SERVER"),
    ("resource is denied", "dockyard login SERVER"),
    ("executable file not found", "dockyard run -it --entrypoint sh IMAGE"),
    ("no space left", "dockyard system df"),
)


def next_command(message: str) -> str:
    """What helps after this message; "" when nothing is known."""
    if message.startswith("network ") and message.endswith(" not found"):
        return "dockyard network ls"
    return next((command for text, command in _HINTS if text in message), "")
