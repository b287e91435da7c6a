"""exec: create, resize, inspect (start takes the connection over: ``streams``)."""

from __future__ import annotations

from dockyard.api import answers
from dockyard.api.call import Call
from dockyard.http import Answer


async def create(call: Call) -> Answer:
    return answers.json({"Id": await call.engine.execs.create(call.params["id"], await call.document())}, 201)


async def resize(call: Call) -> Answer:
    await call.engine.execs.resize(call.params["id"], call.number("h"), call.number("w"))
    return answers.empty(200)


async def inspect(call: Call) -> Answer:
    return answers.json(await call.engine.execs.inspect(call.params["id"]))
