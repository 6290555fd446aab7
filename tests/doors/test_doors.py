"""Who may come in, and how often."""

import asyncio
import contextlib
import signal
import socket as sockets
import ssl
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import grpc
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from edge_gateway.cors import SEES_PREFLIGHTS
from tests.support.certificates import Authority
from tests.support.clients import HANDSHAKE, JSON, PROTO, caller, events_of, frames, opening, socket, terminal
from tests.support.services import Service, since_boot
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.times import UNIT


async def status(address: str, **headers: str) -> int:
    """Return what a handshake gets."""
    try:
        async with connect(f"ws://{address}/v1/stream", additional_headers=headers):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def test_origins() -> None:
    """Our own page and those that are named may open sockets; others may not; what is no browser may."""
    with start_gateway("127.0.0.1:1", ORIGINS="https://app.example,http://localhost:3000") as front:
        for origin, expected in (
            (f"http://{front.address}", 101),
            ("https://app.example", 101),
            ("http://localhost:3000", 101),
            ("https://app.example.evil.example", 403),
            ("https://evil.example", 403),
            ("http://app.example", 403),
            ("null", 403),
            ("http://[", 403),
            ("", 403),
        ):
            assert await status(front.address, Origin=origin) == expected, origin
        assert await status(front.address) == 101
        # A name that was made to point here is not ours, though its page says the same name twice.
        assert await raw(front, b"Host: evil.example:1", b"Origin: http://evil.example:1") == 403
        front.wait_for(lambda record: record["event"] == "handshake refused")
        assert {record["event"] for record in since_boot(front)} == {"serving", "handshake refused"}
        assert all(record["status"] == 403 for record in since_boot(front) if record["event"] != "serving")


async def answer(front: Service, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """Return what a request gets: the status, the headers in lower case, and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {front.address}",
        *(f"{name}: {each}" for name, each in headers.items()),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status, *fields = head.split("\r\n")
    return (
        int(status.split()[1]),
        {name.lower(): each for name, _, each in (field.partition(": ") for field in fields)},
        body,
    )


APP, EVIL = "https://app.example", "https://evil.example"
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
needs_preflights = pytest.mark.skipif(not SEES_PREFLIGHTS, reason="an older websockets answers preflights by itself")


async def test_the_client_is_for_pages_that_are_named() -> None:
    """A page that may open sockets may load the client from here, from wherever it is itself; another may not."""
    with start_gateway("127.0.0.1:1", ORIGINS=APP) as front:
        code, about, _ = await answer(front, "GET", "/runwire.js", Origin=APP)
        assert (code, about["access-control-allow-origin"], about["vary"]) == (200, APP, "Origin")
        for origin in (EVIL, "null"):
            code, about, _ = await answer(front, "GET", "/runwire.js", Origin=origin)
            assert code == 200
            assert "access-control-allow-origin" not in about
        for path in ("/", "/console/console.js", "/healthz", "/readyz"):
            assert "access-control-allow-origin" not in (await answer(front, "GET", path, Origin=APP))[1]


@needs_preflights
@pytest.mark.parametrize("path", ["/v1/agents", "/v1/runs"])
async def test_lists_are_for_pages_that_are_named(path: str) -> None:
    """A page that may open sockets may list agents and runs, with its token; that it is refused it may read, too."""
    with start_engine() as back, start_gateway(back.address, ORIGINS=APP) as front:
        code, about, body = await answer(front, "OPTIONS", path, Origin=APP, **PREFLIGHT)
        assert (code, body, about["access-control-allow-origin"]) == (200, "", APP)
        assert (about["access-control-allow-headers"], about["access-control-allow-methods"]) == (
            "authorization",
            "GET",
        )
        code, about, body = await answer(front, "GET", path, Origin=APP, Authorization="Bearer dev:alice")
        assert (code, about["access-control-allow-origin"], body[0]) == (200, APP, "{")
        code, about, _ = await answer(front, "GET", path, Origin=APP, Authorization="Bearer nonsense")
        assert (code, about["access-control-allow-origin"]) == (401, APP)
        code, about, _ = await answer(front, "OPTIONS", path, Origin=EVIL, **PREFLIGHT)
        assert (code, "access-control-allow-origin" in about) == (405, False)
        code, about, _ = await answer(front, "GET", path, Origin=EVIL)
        assert "access-control-allow-origin" not in about


@pytest.mark.skipif(SEES_PREFLIGHTS, reason="this websockets sees preflights")
async def test_lists_without_preflights() -> None:
    """With a websockets that answers preflights by itself, lists are for our own pages, and that is said at boot."""
    with start_gateway("127.0.0.1:1", ORIGINS=APP) as front:
        assert "access-control-allow-origin" not in (await answer(front, "GET", "/v1/agents", Origin=APP))[1]
        front.wait_for(lambda record: record["event"].startswith("pages from elsewhere"))


async def test_why_a_page_is_refused() -> None:
    """Any page may read why it may open no socket, and so may whoever reads the log. It costs no other anything."""
    with start_gateway("127.0.0.1:1", ORIGINS=APP, SOCKETS_PER_MINUTE="2") as front:
        for _ in range(5):
            code, about, body = await answer(front, "GET", "/v1/stream", Origin=EVIL)
            assert (code, about["access-control-allow-origin"]) == (403, "*")
            assert body == "Pages from there may not open a socket here.\n"
        told = front.wait_for(lambda record: record["event"] == "handshake refused")
        assert (told["origin"], told["status"]) == (EVIL, 403)
        assert (await answer(front, "GET", "/runwire.js"))[1]["vary"] == "Origin"
        assert [await status(front.address, Origin=APP) for _ in range(3)] == [101, 101, 429]


@pytest.mark.parametrize("origin", ["null", "*", "app.example", "https://app.example/page"])
def test_what_is_no_origin(origin: str) -> None:
    """What names no page stops the boot: `null` would be whoever hides where it comes from."""
    with start_gateway("127.0.0.1:1", ORIGINS=origin) as front:
        assert front.wait() == 2
        assert f"{origin} is no origin" in front.lines[-1]


async def raw(front: Service, *headers: bytes, start: bytes = b"GET /v1/stream HTTP/1.1") -> int:
    """Return the status of a handshake whose headers are written by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(b"\r\n".join([start, *HANDSHAKE.split(b"\r\n")[2:-2], *headers, b"", b""]))
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()  # stopping a service stops our loop, and would wait for the end of what is open
    return int(line.split()[1])


async def test_methods() -> None:
    """Nothing here is for anything but GET."""
    with start_gateway("127.0.0.1:1") as front:
        for method in (b"POST", b"DELETE", b"OPTIONS"):
            assert await raw(front, b"Host: x", start=method + b" /v1/agents HTTP/1.1") == 405
        assert await raw(front, b"Host: x", start=b"GET /healthz HTTP/1.1") == 200


async def test_headers_that_come_twice() -> None:
    """A header that may come once and comes twice is refused where it matters, and breaks nothing."""
    with start_engine() as back, start_gateway(back.address) as front:
        twice = [("Authorization", "Bearer dev:alice"), ("Authorization", "Bearer dev:bob"), ("traceparent", "x")] * 2
        async with connect(f"ws://{front.address}/v1/stream", additional_headers=twice) as connection:
            await connection.send('{"run": {"agent": "echo"}}')
            assert await frames(connection) == []
            assert connection.close_code == 4016
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        for header in (b"Host: a", b"Host: b", b"Origin: http://a", b"Authorization: x", b"Authorization: y"):
            writer.write((b"" if header != b"Host: a" else b"GET /v1/agents HTTP/1.1\r\n") + header + b"\r\n")
        writer.write(b"\r\n")
        assert b" 401 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
        assert [record["event"] for record in front.records] == ["serving"]


async def test_sockets_per_minute() -> None:
    """An address may open so many sockets a minute; X-Forwarded-For counts only behind proxies that are trusted."""
    with start_gateway("127.0.0.1:1", SOCKETS_PER_MINUTE="3") as front:
        assert [await status(front.address) for _ in range(4)] == [101, 101, 101, 429]
        assert await status(front.address, **{"X-Forwarded-For": "10.0.0.1"}) == 429
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://{front.address}/v1/stream"):
                pass
        assert 0 < int(caught.value.response.headers["Retry-After"]) <= 20
    with start_gateway("127.0.0.1:1", SOCKETS_PER_MINUTE="1", TRUSTED_PROXIES="127.0.0.0/8") as front:
        for address in ("10.0.0.1", "10.0.0.2"):
            assert await status(front.address, **{"X-Forwarded-For": address}) == 101
            assert await status(front.address, **{"X-Forwarded-For": address}) == 429
            assert await status(front.address, **{"X-Forwarded-For": f"{address}:4711"}) == 429  # with its port
            # What stands before the first that isn't trusted is anybody's invention.
            assert await status(front.address, **{"X-Forwarded-For": f"10.9.9.9, {address}"}) == 429


async def test_runs_per_minute() -> None:
    """A user may start so many runs a minute, and is told when the next may come; others are not concerned."""
    with start_engine(RUNS_PER_MINUTE="3") as back:
        async with caller(back.address, "alice") as alice, caller(back.address, "bob") as bob:
            for _ in range(3):
                terminal(await alice.run("echo"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await alice.run("echo")
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "grpc-status-details-bin" in dict(tuple(caught.value.trailing_metadata() or ()))
            terminal(await bob.run("echo"))


def tls(front: Service) -> Any:
    return ssl.get_server_certificate(("127.0.0.1", front.port))


async def test_tls_everywhere(tmp_path: Path) -> None:
    """TLS on both, the gateway known to the engine by its certificate; nobody else gets through; SIGHUP reads anew."""
    ours, foreign = Authority(tmp_path, "ours"), Authority(tmp_path, "foreign")
    engine, gateway, stranger = ours.issue("engine"), ours.issue("gateway"), foreign.issue("stranger")
    back_tls = {"TLS_CERT": engine.certificate, "TLS_KEY": engine.key, "TLS_CLIENT_CA": ours.file}
    front_tls = {"TLS_CERT": gateway.certificate, "TLS_KEY": gateway.key, "ENGINE_CA": ours.file}
    known = {"ENGINE_CERT": gateway.certificate, "ENGINE_KEY": gateway.key}
    unknown = {"ENGINE_CERT": stranger.certificate, "ENGINE_KEY": stranger.key}

    def text(settings: dict[str, Path]) -> dict[str, str]:
        return {name: str(value) for name, value in settings.items()}

    trusting = ssl.create_default_context(cafile=str(ours.file))

    async def close_code(front: Service) -> int:
        async with connect(f"wss://{front.address}/v1/stream", ssl=trusting) as connection:
            await connection.send(opening(JSON, "echo"))
            await frames(connection)
            return connection.close_code or 0

    with start_engine(**text(back_tls)) as back:
        with start_gateway(back.address, **text(front_tls | known)) as front:
            assert await close_code(front) == 1000
            with warnings.catch_warnings():  # Python warns of what is too old for us, too
                warnings.simplefilter("ignore", DeprecationWarning)
                old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
                old.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await asyncio.open_connection("127.0.0.1", front.port, ssl=old)

            before = tls(front)
            ours.issue("gateway")  # the same files, with a new certificate in them
            front.signal(signal.SIGHUP)
            front.wait_for(lambda record: record["event"] == "certificates read again")
            assert tls(front) != before
            before = tls(back)
            ours.issue("engine")
            back.signal(signal.SIGHUP)
            back.wait_for(lambda record: record["event"] == "certificates read again")
            assert tls(back) != before
            assert await close_code(front) == 1000
            gateway.key.write_text("half writ")  # a pair that doesn't fit: what serves goes on as it is
            front.signal(signal.SIGHUP)
            front.wait_for(lambda record: record["event"] == "certificates not read again")
            assert await close_code(front) == 1000
        gateway = ours.issue("gateway")
        for settings in (front_tls, front_tls | unknown):  # without a certificate, and with a foreign one
            with start_gateway(back.address, **text(settings)) as front:
                assert await close_code(front) == 4014
        async with caller(back.address) as plain:
            with pytest.raises(grpc.aio.AioRpcError):
                await plain.run("echo")


def test_a_public_address() -> None:
    """An engine without keys does not listen in public, and says what to set; a gateway without TLS says so once."""
    with start_engine(LISTEN="0.0.0.0:0") as back:
        assert back.wait() == 2
        assert "JWT_KEY_FILE" in back.lines[0]
    with start_engine(LISTEN="0.0.0.0:0", JWT_SECRET="x" * 40) as back:
        assert back.address
    with start_gateway("127.0.0.1:1", LISTEN="0.0.0.0:0") as front:
        front.wait_for(lambda record: record["level"] == "warning")
        assert sum(record["level"] == "warning" for record in front.records) == 1


@pytest.mark.measures
@pytest.mark.force
async def test_idle_attackers() -> None:
    """2,000 sockets that never say a word are all closed after `OPEN_TIMEOUT`, and nobody else feels them."""
    with start_engine() as back, start_gateway(back.address, OPEN_TIMEOUT="5") as front:
        loop = asyncio.get_running_loop()

        async def first_event() -> float:
            started = time.perf_counter()
            async with socket(front.address, PROTO) as connection:
                await connection.send(opening(PROTO, "echo"))
                await connection.recv()
                return time.perf_counter() - started

        async def attack() -> sockets.socket:
            attacker = sockets.socket()
            attacker.setblocking(False)
            await loop.sock_connect(attacker, ("127.0.0.1", front.port))
            await loop.sock_sendall(attacker, HANDSHAKE)
            assert (await loop.sock_recv(attacker, 4096)).startswith(b"HTTP/1.1 101")
            return attacker

        usual = statistics.median([await first_event() for _ in range(31)])
        attackers = [await attack() for _ in range(2000)]
        beside = statistics.median([await first_event() for _ in range(31)])
        for attacker in attackers:
            closing = await asyncio.wait_for(loop.sock_recv(attacker, 4096), 30 * UNIT)
            assert int.from_bytes(closing[2:4], "big") == 4004
            attacker.close()
    print(f"first event {usual * 1e3:.1f} ms, beside 2,000 idle sockets {beside * 1e3:.1f} ms")
    assert beside < 2 * usual


async def test_slow_handshakes() -> None:
    """A handshake, or a frame, that comes a byte at a time holds nothing but its own connection, and not for long."""
    with start_engine() as back, start_gateway(back.address, OPEN_TIMEOUT="1") as front:
        writers = []
        for request in (b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 10, b"GET / HT"):
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writers.append((reader, writer))
            writer.write(request)
        async with socket(front.address, PROTO) as connection:
            await connection.send(opening(PROTO, "echo", "hi"))
            assert terminal(events_of(await frames(connection))).agent_completed.output == "hi"
        for reader, writer in writers:
            with contextlib.suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), 5 * UNIT)
            writer.close()


async def test_certificates_read_again_in_mid_run(tmp_path: Path) -> None:
    """A run that began before SIGHUP goes on through the channel it has, and can still be cancelled."""
    ours = Authority(tmp_path, "ours")
    cert = ours.issue("engine")
    with (
        start_engine(TLS_CERT=str(cert.certificate), TLS_KEY=str(cert.key)) as back,
        start_gateway(back.address, ENGINE_CA=str(ours.file)) as front,
    ):
        async with socket(front.address, JSON) as connection, asyncio.timeout(20 * UNIT):
            await connection.send(opening(JSON, "waiter"))
            while "waiting" not in str(await connection.recv()):
                pass
            front.signal(signal.SIGHUP)
            front.wait_for(lambda record: record["event"] == "certificates read again")
            await connection.send('{"cancel": {}}')
            assert "agentCancelled" in str((await frames(connection))[-1])
