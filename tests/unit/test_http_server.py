"""The HTTP server through its sockets (unix, in a temporary directory): framing, flow, hijack, refusals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from dockyard.errors import DockyardError
from dockyard.http import FileResponse, Limits, Request, Response, Server, StreamResponse, unix_socket
from dockyard.http.chunked import ChunkDecoder
from dockyard.http.response import Answer

Handler = Callable[[Request], Answer | Awaitable[Answer]]


class Rig:
    def __init__(self, server: Server, path: Path) -> None:
        self.server = server
        self.path = path

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path))

    async def exchange(self, data: bytes) -> bytes:
        """Send, half close nothing, read until the server closes."""
        reader, writer = await self.connect()
        writer.write(data)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return answer


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, handler: Handler, **options: object) -> AsyncIterator[Rig]:
    server = Server(handler, **options)  # type: ignore[arg-type]
    path = tmp_path / "http.sock"
    await server.listen(unix_socket(path))
    try:
        yield Rig(server, path)
    finally:
        await server.close(0.2)
    assert server.statistics().tasks == 0


async def echo(request: Request) -> Response:
    return Response(200, {"X-Path": request.path}, request.method.encode() + b" " + await request.body())


async def response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
    lines = head.split("\r\n")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
    status = int(lines[0].split()[1])
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    elif status >= 200:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return status, headers, body


async def test_sync_handler_answers_pipelined_requests_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda r: Response(200, {}, r.target.encode())) as rig:
        reader, writer = await rig.connect()
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(50)))
        assert [(await response(reader))[2] for _ in range(50)] == [b"/%d" % n for n in range(50)]
        writer.close()
        assert rig.server.statistics().requests == 50


async def test_async_handler_answers_pipelined_requests_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as rig:
        reader, writer = await rig.connect()
        one = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        two = b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        two += b"3;x=y\r\ndef\r\n2\r\ngh\r\n0\r\nA: b\r\n\r\n"
        three = b"\r\nGET /c%20d?x=1&x=2&y HTTP/1.1\r\nHost: x\r\n\r\n"
        for byte in one + two + three:  # worst case: every byte alone
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await response(reader))[2] == b"POST abc"
        assert (await response(reader))[2] == b"POST defgh"
        status, headers, body = await response(reader)
        assert (status, headers["x-path"], body) == (200, "/c d", b"GET ")
        writer.close()


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 64, 1000, 10_000])
def test_a_chunked_body_is_the_same_however_it_arrives(step: int) -> None:
    """docker's command line sends every header and every file of a context as a chunk of its own."""
    sizes = [1, 512, 17, 495, 2, 0x1000, 3] * 20
    chunks = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\nGET"
    decoder = ChunkDecoder()
    payload = rest = b""
    calls = 0
    for at in range(0, len(wire), step):
        more, behind = decoder.feed(wire[at : at + step])
        payload, rest, calls = payload + more, rest + behind, calls + bool(more)
        if decoder.complete:
            rest += wire[at + step :]
            break
    assert (payload, rest) == (b"".join(chunks), b"GET")
    assert calls <= len(wire) // step + 1, "one piece an arrival, however many chunks are in it"


@pytest.mark.parametrize("bad", [b"2\r\nabc\r\n", b"1\r\na\r\n\r\n", b"1\r\na\r\ng\r\n", b"1\r\na\r\n" + b"0" * 17 + b"\r\n"])
def test_a_broken_chunk_behind_a_good_one_is_refused(bad: bytes) -> None:
    with pytest.raises(DockyardError):
        ChunkDecoder().feed(b"3\r\nxyz\r\n" + bad)


async def test_query_and_headers() -> None:
    from dockyard.http import Headers

    headers = Headers([(b"Accept", b"a"), (b"accept", b"b"), (b"X-Y", b"z")])
    assert headers.get("ACCEPT") == "a, b"
    assert headers.all("accept") == ["a", "b"]
    assert "x-y" in headers
    assert headers.get("nope", "d") == "d"


async def test_default_headers_and_date_are_on_every_answer(tmp_path: Path) -> None:
    async with serving(tmp_path, echo, default_headers={"Api-Version": "1.51"}) as rig:
        answer = await rig.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"\r\nApi-Version: 1.51\r\n" in answer
        assert b"\r\nDate: " in answer
        refused = await rig.exchange(b"GET / HTTP/1.1\r\nbad header\r\n\r\n")
        assert b"\r\nApi-Version: 1.51\r\n" in refused


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /" + b"a" * 80000, 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 80000, 431),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400),
    ],
)
async def test_malformed_requests_are_refused_and_closed(tmp_path: Path, data: bytes, status: int) -> None:
    def on_error(request: Request, error: Exception) -> Response:
        return Response(400, {}, str(error).encode())

    async with serving(tmp_path, echo, on_error=on_error) as rig:
        assert (await rig.exchange(data)).startswith(b"HTTP/1.1 %d " % status)


async def test_http_1_0_is_closed_unless_asked(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as rig:
        assert (await rig.exchange(b"GET / HTTP/1.0\r\n\r\n")).endswith(b"GET ")
        reader, writer = await rig.connect()
        writer.write(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2)
        assert (await response(reader))[1]["connection"] == "keep-alive"
        assert (await response(reader))[0] == 200
        writer.close()


async def test_expect_100_continue_is_sent_when_the_body_is_wanted(tmp_path: Path) -> None:
    async def handler(request: Request) -> Response:
        return Response(403) if request.path == "/no" else await echo(request)

    async with serving(tmp_path, handler) as rig:
        reader, writer = await rig.connect()
        writer.write(b"PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await response(reader))[0] == 100
        writer.write(b"hi")
        assert (await response(reader))[2] == b"PUT hi"
        writer.write(b"PUT /no HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        status, headers, _ = await response(reader)
        assert (status, headers["connection"]) == (403, "close")
        assert await reader.read() == b""
        writer.close()


async def test_a_stream_that_reads_the_body_invites_it_before_its_own_head(tmp_path: Path) -> None:
    """curl loads an image so: the 100 came between two chunks of the answer."""

    async def chunks(request: Request) -> AsyncIterator[bytes]:
        yield b"got "
        yield await request.body()

    async with serving(tmp_path, lambda r: StreamResponse(200, {}, chunks(r))) as rig:
        reader, writer = await rig.connect()
        writer.write(b"POST /load HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await response(reader))[0] == 100
        writer.write(b"hi")
        assert (await response(reader))[::2] == (200, b"got hi")
        writer.close()


async def test_a_late_body_and_the_next_request_in_one_packet(tmp_path: Path) -> None:
    """The answer goes out before the body comes; the body then arrives glued to the next head."""
    async with serving(tmp_path, lambda r: Response(200, {}, r.path.encode())) as rig:
        reader, writer = await rig.connect()
        writer.write(b"POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        assert (await response(reader))[2] == b"/one"
        writer.write(b"xxGET /two HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await response(reader))[2] == b"/two"
        writer.close()


async def test_unread_body_is_swallowed_when_small_and_closes_when_large(tmp_path: Path) -> None:
    async with serving(tmp_path, lambda r: Response(401)) as rig:
        reader, writer = await rig.connect()
        for _ in range(3):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000)
            assert (await response(reader))[0] == 401
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 3_000_000)
        status, headers, _ = await response(reader)
        assert (status, headers["connection"]) == (401, "close")
        assert await reader.read() == b""
        writer.close()


async def test_a_body_that_nobody_takes_stops_the_socket(tmp_path: Path) -> None:
    go = asyncio.Event()
    seen: list[int] = []

    async def handler(request: Request) -> Response:
        await go.wait()
        seen.extend([len(piece) async for piece in request.stream()])
        return Response(200, {}, str(sum(seen)).encode())

    async with serving(tmp_path, handler) as rig:
        reader, writer = await rig.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n")
        writer.write(bytes(20_000_000))
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert writer.transport.get_write_buffer_size() > 15_000_000  # type: ignore[attr-defined]
        go.set()
        assert (await response(reader))[2] == b"20000000"
        writer.close()


async def test_body_limit_is_an_error_for_the_hook(tmp_path: Path) -> None:
    async def handler(request: Request) -> Response:
        return Response(200, {}, await request.body(10))

    def on_error(request: Request, error: Exception) -> Response:
        return Response(getattr(error, "evidence", {}).get("status", 500), {}, str(error).encode())

    async with serving(tmp_path, handler, on_error=on_error) as rig:
        answer = await rig.exchange(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 11\r\n\r\nhello world")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"request body is larger than 10 bytes")


async def test_exceptions_never_reach_the_client(tmp_path: Path) -> None:
    def handler(request: Request) -> Response:
        raise RuntimeError("secret")

    async with serving(tmp_path, handler) as rig:
        answer = await rig.exchange(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"secret" not in answer


async def test_stream_sends_its_head_before_the_first_item_and_each_item_at_once(tmp_path: Path) -> None:
    gates = [asyncio.Event() for _ in range(2)]

    async def items() -> AsyncIterator[bytes]:
        for n, gate in enumerate(gates):
            await gate.wait()
            yield b"item%d" % n

    async with serving(tmp_path, lambda r: StreamResponse(200, {"X": "y"}, items())) as rig:
        reader, writer = await rig.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b"Transfer-Encoding: chunked" in head
        for n, gate in enumerate(gates):
            gate.set()
            assert await asyncio.wait_for(reader.readexactly(10), 5) == b"5\r\nitem%d\r\n" % n
        assert await reader.readexactly(5) == b"0\r\n\r\n"
        writer.close()


async def test_stream_ends_with_its_client_and_closes_the_generator(tmp_path: Path) -> None:
    closed = asyncio.Event()
    left = asyncio.Event()

    async def items() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.set()

    def handler(request: Request) -> Answer:
        request.on_disconnect(left.set)
        return StreamResponse(200, {}, items())

    async with serving(tmp_path, handler) as rig:
        reader, writer = await rig.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"first")
        writer.close()
        await asyncio.wait_for(closed.wait(), 5)
        await asyncio.wait_for(left.wait(), 5)


async def test_stream_that_fails_is_cut_not_ended(tmp_path: Path) -> None:
    async def items() -> AsyncIterator[bytes]:
        yield b"first"
        raise RuntimeError("boom")

    async with serving(tmp_path, lambda r: StreamResponse(200, {}, items())) as rig:
        with contextlib.suppress(ConnectionResetError):
            answer = await rig.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not answer.endswith(b"0\r\n\r\n")


async def test_stream_is_held_up_by_a_client_that_does_not_read(tmp_path: Path) -> None:
    made = 0

    async def items() -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield bytes(65536)

    async with serving(tmp_path, lambda r: StreamResponse(200, {}, items())) as rig:
        _, writer = await rig.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(100):
            await asyncio.sleep(0.001)
        settled = made
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert 0 < settled == made < 40
        writer.close()


async def test_a_handler_outlives_its_client(tmp_path: Path) -> None:
    go, done = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Response:
        request.on_disconnect(go.set)
        await go.wait()
        assert request.disconnected
        done.set()
        return Response(200)

    async with serving(tmp_path, handler) as rig:
        _, writer = await rig.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        writer.close()
        await asyncio.wait_for(done.wait(), 5)


async def test_head_has_no_body(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"12345")

    def handler(request: Request) -> Answer:
        return FileResponse(file) if request.path == "/f" else Response(200, {}, b"body")

    async with serving(tmp_path, handler) as rig:
        answer = await rig.exchange(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\nHEAD /f HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert answer.count(b"HTTP/1.1 200") == 2
        assert b"Content-Length: 4\r\n" in answer
        assert b"Content-Length: 5\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("size", [0, 5, 64 * 1024, 64 * 1024 + 1, 30_000_000])
async def test_files(tmp_path: Path, size: int) -> None:
    file = tmp_path / "f"
    content = bytes(n % 251 for n in range(min(size, 100_000))) * (size // 100_000 or 1)
    file.write_bytes(content)

    async with serving(tmp_path, lambda r: FileResponse(file, offset=min(3, len(content)))) as rig:
        reader, writer = await rig.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        for _ in range(2):
            assert (await response(reader))[2] == content[3:]
        writer.close()


async def test_a_file_sent_to_a_client_that_leaves_frees_its_descriptor(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(bytes(50_000_000))
    sent: list[FileResponse] = []

    def handler(request: Request) -> Answer:
        sent.append(FileResponse(file))
        return sent[-1]

    async with serving(tmp_path, handler) as rig:
        reader, writer = await rig.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(100_000)
        writer.transport.abort()  # type: ignore[attr-defined]
        for _ in range(500):
            if sent[0].fd < 0:
                break
            await asyncio.sleep(0.01)
        assert sent[0].fd == -1


@pytest.mark.parametrize("upgrade", [b"Connection: Upgrade\r\nUpgrade: tcp\r\n", b""])
async def test_hijack_hands_over_early_bytes_and_both_halves_close_alone(tmp_path: Path, upgrade: bytes) -> None:
    async def handler(request: Request) -> None:
        assert await request.body() == b"{}"
        raw = request.hijack(b"HTTP/1.1 101 UPGRADED\r\n\r\n")
        got = b""
        while data := await raw.read(3):
            got += data
        raw.write(b"got " + got)  # the client has closed its half already
        await raw.drain()
        raw.write_eof()

    async with serving(tmp_path, handler) as rig:
        reader, writer = await rig.connect()
        writer.write(b"POST /exec HTTP/1.1\r\nHost: x\r\n" + upgrade + b"Content-Length: 2\r\n\r\n{}early ")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 101 UPGRADED\r\n\r\n"
        writer.write(b"late")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b"got early late"
        writer.close()


async def test_http2_preface_goes_to_its_hook(tmp_path: Path) -> None:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def on_h2(transport: asyncio.Transport, data: bytes) -> None:
        got.set_result(data)
        transport.close()

    async with serving(tmp_path, echo, on_h2=on_h2) as rig:
        await rig.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes")
        assert got.result() == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nframes"


async def test_slow_clients_are_swept(tmp_path: Path) -> None:
    limits = Limits(head_seconds=5, idle_seconds=20, body_seconds=10)

    def on_error(request: Request, error: Exception) -> Response:
        return Response(getattr(error, "evidence", {}).get("status", 500))

    async with serving(tmp_path, echo, limits=limits, on_error=on_error) as rig:
        conns = [await rig.connect() for _ in range(3)]
        conns[1][1].write(b"GET / HT")
        conns[2][1].write(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab")
        for _ in range(20):
            await asyncio.sleep(0.001)
        now = rig.server.clock

        def sweep(seconds: float) -> int:
            for connection in list(rig.server._connections):
                connection.sweep(now + seconds)
            return rig.server.statistics().connections

        sweep(6)
        assert await conns[1][0].read() == b""
        sweep(11)
        assert (await response(conns[2][0]))[0] == 408
        sweep(21)
        assert await conns[0][0].read() == b""
        for _, writer in conns:
            writer.close()


async def test_close_lets_the_request_in_flight_finish(tmp_path: Path) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Response:
        started.set()
        await go.wait()
        return Response(200, {}, b"done")

    async with serving(tmp_path, handler) as rig:
        idle = await rig.connect()
        busy = await rig.connect()
        busy[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await started.wait()
        closing = asyncio.create_task(rig.server.close(5))
        assert await idle[0].read() == b""
        go.set()
        assert (await busy[0].read()).endswith(b"done")
        await closing
        idle[1].close()
        busy[1].close()


async def test_a_header_value_cannot_begin_a_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line break"):
        Response(200, {"Location": "/x\r\nSet-Cookie: a=b"})


async def test_unix_socket_replaces_a_dead_one_but_not_a_living_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    unix_socket(path).close()
    sock = unix_socket(path, mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    sock.listen()
    with pytest.raises(Exception, match="another server answers"):
        unix_socket(path)
    sock.close()
