"""Docker's framing and JSON streams, cut at every possible place."""

from __future__ import annotations

import json

import pytest

from dockyard.client.frames import STDERR, STDOUT, Frame, decode, encode, objects


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", range(1, 24))
def test_frames_survive_any_cut(size: int) -> None:
    data = encode(STDOUT, b"hello ") + encode(STDERR, b"") + encode(STDERR, b"oops") + encode(STDOUT, b"world")
    joined: dict[int, bytes] = {}
    for frame in decode(_cut(data, size)):
        joined[frame.stream] = joined.get(frame.stream, b"") + frame.data
    assert joined == {STDOUT: b"hello world", STDERR: b"oops"}


def test_a_frame_cut_off_by_the_end_is_given_as_far_as_it_came() -> None:
    assert list(decode([encode(STDOUT, b"abcdef")[:-2]])) == [Frame(STDOUT, b"abcd")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("between", [b"\r\n", b"\n", b""])
def test_json_values_survive_any_cut(size: int, between: bytes) -> None:
    values = [{"status": "Ünïcode ✓"}, {"a": {"b": [1, "}"]}}, {"id": "x\ny"}]
    data = between.join(json.dumps(value, ensure_ascii=False).encode() for value in values) + between
    assert list(objects(_cut(data, size))) == values


def test_garbage_in_a_json_stream_is_an_error() -> None:
    with pytest.raises(ValueError):
        list(objects([b'{"a":1}\nnonsense\n{"b":2}\n']))
