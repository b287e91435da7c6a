"""What running tests and stubs ask of an engine: an image that is there, a command with its output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dockyard.client import Client, quote
from dockyard.dockunit.errors import NOT_PULLED
from dockyard.errors import NotFound

LABEL = "dockyard.unit.entry"
PULL_SILENCE = 600.0


def has(client: Client, image: str) -> bool:
    try:
        client.request("GET", f"/images/{quote(image)}/json")
    except NotFound:
        return False
    return True


def fetch(client: Client, image: str, headers: Callable[[str], dict[str, str]]) -> str:
    """The image's ID; pulled when it is not there. Raises System."""
    if not has(client, image):
        name, _, tag = image.partition("@") if "@" in image else image.rpartition(":")
        if not name or "/" in tag:
            name, tag = image, "latest"
        for row in client.objects(
            "POST", "/images/create", {"fromImage": name, "tag": tag}, headers=headers(image), timeout=PULL_SILENCE
        ):
            if row.get("error"):
                raise NOT_PULLED(image=image, cause=row["error"])
    return str(client.request("GET", f"/images/{quote(image)}/json")["Id"])


def exec_in(
    client: Client, container: str, command: Sequence[str], hear: Callable[[str], None], *, directory: str = ""
) -> int:
    """The exit code; each line of output is heard."""
    body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, "WorkingDir": directory}
    made = client.request("POST", f"/containers/{container}/exec", body=body)["Id"]
    rest = b""
    with client.hijack(f"/exec/{made}/start", body={"Detach": False, "Tty": False}) as stream:
        for frame in stream.frames(tty=False):
            *whole, rest = (rest + frame.data).split(b"\n")
            for line in whole:
                hear(line.decode("utf-8", "replace").rstrip("\r"))
    if rest:
        hear(rest.decode("utf-8", "replace"))
    return int(client.request("GET", f"/exec/{made}/json").get("ExitCode") or 0)
