"""The classic transcript: in the file's order whatever the order of events; bounded."""

from __future__ import annotations

from dockyard.build.doors import transcript
from dockyard.build.doors.transcript import Transcript
from dockyard.build.progress import Event, Output, Running, VertexDone, VertexQueued, VertexStarted, Warned


def queued(number: int, name: str, place: int = 2) -> VertexQueued:
    return VertexQueued(f"v{number}", name, (), number, 3, "", (place, 3))


START: list[Event] = [queued(1, "FROM a", 1), queued(2, "RUN x"), queued(3, "RUN y")]


def told(events: list[Event], script: Transcript | None = None) -> str:
    script = script or Transcript()
    return "".join(message["stream"] for event in events for message in script.feed(event))


def test_in_order() -> None:
    events: list[Event] = [
        *START, VertexStarted("v1", 0), VertexDone("v1", 0, True, result="sha256:" + "a" * 64),
        VertexStarted("v2", 0), Running("v2", "b" * 64, 0), Output("v2", 1, b"hello\n", 0),
        VertexDone("v2", 0, result="sha256:" + "c" * 64),
        VertexStarted("v3", 0), VertexDone("v3", 0, True, result="sha256:" + "d" * 64),
    ]  # fmt: skip
    assert told(events) == (
        "Step 1/3 : FROM a\n ---> aaaaaaaaaaaa\n"
        "Step 2/3 : RUN x\n ---> Running in bbbbbbbbbbbb\nhello\n ---> Removed intermediate container bbbbbbbbbbbb\n"
        " ---> cccccccccccc\nStep 3/3 : RUN y\n ---> Using cache\n ---> dddddddddddd\n"
    )


def test_a_later_step_waits_for_an_earlier_one() -> None:
    script = Transcript()
    early = told([*START, VertexStarted("v3", 0), Output("v3", 1, b"late\n", 0), VertexDone("v3", 0)], script)
    assert early == ""
    assert told([VertexStarted("v1", 0), VertexDone("v1", 0)], script) == "Step 1/3 : FROM a\n ---> \n"
    rest = told([VertexStarted("v2", 0), VertexDone("v2", 0)], script)
    assert rest == "Step 2/3 : RUN x\n ---> \nStep 3/3 : RUN y\nlate\n ---> \n"


def test_after_a_failure_what_waited_is_told() -> None:
    script = Transcript()
    told([*START, VertexStarted("v3", 0), Output("v3", 1, b"why it failed\n", 0), VertexDone("v3", 0, error="x")], script)
    assert "why it failed" in "".join(message["stream"] for message in script.rest())


def test_stderr_is_red_and_characters_are_whole() -> None:
    script = Transcript()
    told([*START, VertexStarted("v1", 0)], script)
    assert told([Output("v1", 2, b"bad\n", 0)], script) == "\x1b[91mbad\n\x1b[0m"
    assert told([Output("v1", 1, "ä".encode()[:1], 0)], script) == ""
    assert told([Output("v1", 1, "ä".encode()[1:], 0)], script) == "ä"


def test_what_waits_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(transcript, "MAX_WAITING", 1000)
    script = Transcript()
    told([*START, VertexStarted("v2", 0)], script)
    for _ in range(100):
        assert told([Output("v2", 1, b"x" * 100, 0)], script) == ""
    text = told([VertexStarted("v1", 0), VertexDone("v1", 0)], script)
    assert len(text) < 1500
    assert "output clipped" in text


def test_warnings_come_at_the_end() -> None:
    script = Transcript()
    assert told([Warned("careful"), Warned("lint", "Rule")], script) == ""
    assert list(script.warnings()) == [{"stream": "careful\n"}]
