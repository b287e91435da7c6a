"""Whatever is typed: a value or UsageError; whatever a template says: a text or the error of templates."""

from __future__ import annotations

import contextlib
import itertools

from hypothesis import given
from hypothesis import strategies as st

from dockyard.cli import flags, usage
from dockyard.cli.commands.complete import candidates
from dockyard.cli.flags import UsageError
from dockyard.cli.output import duration, size
from dockyard.cli.request import mounts, networks, ports, resources, values
from dockyard.cli.request.create import document
from dockyard.cli.request.declaration import CREATE
from dockyard.cli.template import render
from dockyard.cli.terminal import KeyWatch, key_bytes
from dockyard.errors import InvalidParameter

PIECES = st.sampled_from(
    ["", "80", "8080", "-", ":", "/", "tcp", "0.0.0.0", "[::1]", "type=", "bind", "src=", "dst=/a", ",", "=", '"', "ro", "1g", ".",
     "m", "ctrl-", "p", "é", "\x00", "-1", "99999999999", "e9", "inf", "nan", "2026-01-02", "T", "10m", "%", "device=", "\n", "²"]
)  # fmt: skip
WORDS = st.lists(PIECES, max_size=7).map("".join)
NAMES = [flag.name for flag in flags.declared(CREATE)]
ACTIONS = st.sampled_from(
    [".", ".A", ".B.C", "$", "$x", "(", ")", "|", "json", "len", "index", "printf", '"%s"', '"%d', "`", "eq", "1", "-1", "if", "range",
     "with", "end", "else", ":=", ",", "slice", "join", "split", "pad", "-", "/*", "nil", "true", "²", "\\", "title", "truncate"]
)  # fmt: skip
TEMPLATES = st.lists(
    st.one_of(st.lists(ACTIONS, max_size=5).map(lambda words: "{{" + " ".join(words) + "}}"), st.sampled_from(["x", "{{", "}}", " "])),
    max_size=6,
).map("".join)  # fmt: skip


@given(WORDS)
def test_words_of_flags(word: str) -> None:
    for read in (
        lambda: ports.published([word]), lambda: ports.exposed([word]), lambda: mounts.mounts([word]),
        lambda: mounts.volumes([word]), lambda: values.size(word, "--x"), lambda: values.span(word, "--x"),
        lambda: values.nano_cpus(word), lambda: networks.extra_hosts([word]), lambda: resources.restart_policy(word),
        lambda: usage.moment_of(word), lambda: key_bytes(word), lambda: values.environment([], [word], {}),
    ):  # fmt: skip
        with contextlib.suppress(UsageError):
            read()


@given(st.lists(st.tuples(st.sampled_from(NAMES), WORDS), max_size=4))
def test_command_lines_of_create(pairs: list[tuple[str, str]]) -> None:
    words = [f"--{name}={value}" for name, value in pairs if name not in ("env-file", "label-file")]
    with contextlib.suppress(UsageError):
        document(flags.parse(flags.declared(CREATE), [*words, "img"], interspersed=False), environ={})


@given(st.lists(st.one_of(WORDS, st.sampled_from(["-it", "--rm", "-v", "--", "-", "--net", "-e=", "--all=false"])), max_size=6))
def test_any_words(words: list[str]) -> None:
    with contextlib.suppress(UsageError):
        flags.parse(flags.declared(CREATE), words)
    assert isinstance(candidates([*words, ""], lambda kind: ["a"]), list)


@given(TEMPLATES)
def test_templates(template: str) -> None:
    with contextlib.suppress(InvalidParameter):
        render(template, {"A": [1, "x", None], "B": {"C": True}})


@given(st.binary(max_size=40), st.lists(st.integers(0, 40), max_size=3))
def test_what_is_typed_is_sent_whatever_way_it_is_cut(data: bytes, cuts: list[int]) -> None:
    keys = b"\x10\x11"
    whole, _ = KeyWatch(keys).take(data)
    watch, out, left = KeyWatch(keys), b"", False
    at = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(at):
        if not left:
            more, left = watch.take(data[start:end])
            out += more
    assert out == whole


@given(st.integers(0, 10**18), st.floats(0, 1e12))
def test_numbers_for_people(number: int, seconds: float) -> None:
    assert len(size(number)) <= 6
    assert duration(seconds)
