"""exec: create, resize, inspect (start takes the connection over: ``streams``)."""

from __future__ import annotations

import msgspec

from dockyard.api import answers
from dockyard.api.call import Call
from dockyard.http import Answer
from dockyard.model.wire import Document


class ExecConfig(Document, frozen=True):
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: list[int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


class ExecStart(Document, frozen=True):
    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


async def create(call: Call) -> Answer:
    wish = await call.json(ExecConfig, empty=ExecConfig())
    return answers.json({"Id": await call.engine.execs.create(call.params["id"], msgspec.to_builtins(wish))}, 201)


async def resize(call: Call) -> Answer:
    await call.engine.execs.resize(call.params["id"], call.number("h"), call.number("w"))
    return answers.empty(200)


async def inspect(call: Call) -> Answer:
    return answers.json(await call.engine.execs.inspect(call.params["id"]))
