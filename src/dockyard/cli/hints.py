"""From a refusal to the command to type next. Pure: the daemon's sentence is all that is looked at."""

from __future__ import annotations

import re

DOCKER_HUB = "registry-1.docker.io"
_COMMAND = re.compile(r"(sudo |dockyard |-)")
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
    if unreached := re.search(r'"https?://([^/"]+)/\S*": dial tcp', message):
        registry = f"dockyard doctor registry {unreached[1]}"
        own = "; without any registry: dockyard image bootstrap busybox" if unreached[1] == DOCKER_HUB else ""
        return registry + own
    return next((command for text, command in _HINTS if text in message), "")


def in_our_words(hint: str) -> str:
    """A hint of the engine, which speaks to people with docker's command line, for those with ours."""
    return re.sub(r"\bdocker (?=[a-z])", "dockyard ", hint)


def hint_line(hint: str) -> str:
    """``try:`` before what can be typed, ``hint:`` before advice."""
    return f"{'try' if _COMMAND.match(hint) else 'hint'}: {hint}"
