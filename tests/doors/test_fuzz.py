"""Hostile input, through the real services. A short form here; `make fuzz` sends 100,000 frames and 20,000 strings."""

import asyncio
import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runwire.v1.engine_pb2 import ResumeRequest, RunRequest
from runwire.v1.gateway_pb2 import CancelFrame, ClientFrame
from websockets.frames import Frame, Opcode

from tests.support.clients import HANDSHAKE, JSON, PROTO, frames, opening, socket
from tests.support.messages import messages
from tests.support.services import Service, since_boot
from tests.support.services import engine as start_engine
from tests.support.services import gateway as start_gateway
from tests.support.times import UNIT

FRAMES = int(os.environ.get("FUZZ_FRAMES", "2000"))
STRINGS = int(os.environ.get("FUZZ_STRINGS", "400"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
AT_ONCE = 40
LIMIT = 64 * 1024
CLEAN = {1000, 1002, 1003, 1007, 1009} | {4000 + status for status in range(17)}
"""Codes that say what is what. 1011 would say that something broke that should not."""

VALID = [
    b'{"run": {"agent": "echo", "input": "hi", "history": [{"role": "ROLE_USER", "text": "x"}]}}',
    b'{"accessToken": "dev:eve", "run": {"agent": "triage", "parameters": {"pace": 0}, "threadId": "t"}}',
    b'{"resume": {"runId": "123e4567-e89b-42d3-a456-426614174000", "afterSeq": 17}}',
    b'{"cancel": {}}',
    b'{"leave": {}}',
]
BINARY = [
    ClientFrame(access_token="dev:eve", run=RunRequest(agent="echo", input="hi")).SerializeToString(),
    ClientFrame(resume=ResumeRequest(run_id="123e4567-e89b-42d3-a456-426614174000", after_seq=17)).SerializeToString(),
    ClientFrame(cancel=CancelFrame()).SerializeToString(),
]


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Service, Service]]:
    with (
        start_engine(MAX_RUNS_PER_USER="1000", MAX_RUNS="1000") as back,
        start_gateway(back.address, OPEN_TIMEOUT="1", MAX_FRAME_BYTES="64KiB") as front,
    ):
        yield back, front


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Return a frame's content that is nearly right, or not at all."""
    ways: list[Callable[[], bytes]] = [
        lambda: data,
        lambda: data[: chance.randrange(len(data) + 1)],
        lambda: data + data,
        lambda: data.replace(b'"', b"'", chance.randrange(3)),
        lambda: data.replace(b"run", chance.choice([b"Run", b"runs", b"run\\u0000", b"resume"])),
        lambda: b"".join(bytes([chance.randrange(256)]) if chance.random() < 0.05 else bytes([byte]) for byte in data),
        lambda: chance.randbytes(chance.randrange(200)),
        lambda: b'{"run": ' * chance.randrange(1, 5000),
        lambda: b"[" * chance.randrange(1, 30000),
        lambda: b'{"run": {"parameters": ' + b'{"a": ' * 500 + b"1" + b"}" * 502,
        lambda: b'{"run": {"agent": "echo", "input": "' + b"x" * chance.randrange(LIMIT * 2) + b'"}}',
        lambda: b'{"run": {"agent": "echo", "parameters": {"n": ' + b"9" * chance.randrange(6000) + b"}}}",
        lambda: b'{"run": {"agent": "echo", "parameters": {"n": NaN}}}',
        lambda: b'{"run": {"agent": "echo", "resumeWindow": "' + chance.choice([b"-1s", b"1e9s", b"x"]) + b'"}}',
        lambda: b'{"run": {"agent": "\\ud800"}, "run": {}}',
        lambda: json.dumps(
            {"run": {chance.choice(["agent", "runId", "history"]): chance.choice([1, None, [], {}])}}
        ).encode(),
    ]
    return chance.choice(ways)()


def framed(chance: random.Random, content: bytes, opcode: Opcode) -> bytes:
    """Put content into frames: one, several, with others in between, or with something wrong about them."""
    way = chance.randrange(16)
    if way == 0 and len(content) > 2:  # in pieces, with a ping between them
        cut = chance.randrange(1, len(content))
        pieces = [Frame(opcode, content[:cut], fin=False), Frame(Opcode.PING, b"!"), Frame(Opcode.CONT, content[cut:])]
    elif way == 1:  # a continuation of nothing
        pieces = [Frame(Opcode.CONT, content)]
    elif way == 2:  # one that begins before another has ended
        pieces = [Frame(opcode, content, fin=False), Frame(opcode, content)]
    else:
        pieces = [Frame(opcode, content)]
    data = b"".join(piece.serialize(mask=way != 3) for piece in pieces)  # a browser must mask
    return bytes([data[0] | 0x70]) + data[1:] if way == 4 else data


async def outcome(port: int, subprotocol: str, *sent: bytes) -> int:
    """Send frames on a socket, read it to its end, and return the code that it was closed with; 0 for none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(HANDSHAKE.replace(b"\r\n\r\n", f"\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n".encode()))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        for data in sent:
            writer.write(data)
        async with asyncio.timeout(30 * UNIT):
            return await close_code(reader)
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0
    finally:
        writer.close()


async def close_code(reader: asyncio.StreamReader) -> int:
    """Read frames up to the one that closes."""
    while True:
        first, length = await reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await reader.readexactly(8), "big")
        payload = await reader.readexactly(length)
        if first & 0x0F == Opcode.CLOSE:
            payload[2:].decode()  # the reason is UTF-8, whatever was sent
            return int.from_bytes(payload[:2], "big")


async def at_once(count: int, one: Callable[[int], Any]) -> list[Any]:
    numbers, results = iter(range(count)), list[Any]()

    async def work() -> None:
        for number in numbers:
            results.append(await one(number))

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return results


async def is_well(services: tuple[Service, Service]) -> None:
    """Check that a normal run works, and that nothing was logged that is an error, nor an exception."""
    async with socket(services[1].address) as connection:
        await connection.send(opening(JSON, "echo", "hi"))
        assert "agentCompleted" in (await frames(connection))[-1]
    for service in services:
        seen = since_boot(service)
        assert not [record for record in seen if record.get("level") != "info" or "exception" in record], seen[-3:]


@pytest.mark.force
async def test_frames(services: tuple[Service, Service]) -> None:
    """First and later frames of every bad kind get a clean close, and hurt nobody."""

    async def one(number: int) -> tuple[int, int]:
        chance = random.Random(SEED * 1_000_003 + number)
        subprotocol, valid = chance.choice([(JSON, VALID), (PROTO, BINARY)])
        right = Opcode.TEXT if subprotocol == JSON else Opcode.BINARY
        opcode = right if chance.random() < 0.9 else chance.choice([Opcode.TEXT, Opcode.BINARY])
        bad = framed(chance, mutated(chance, chance.choice(valid)), opcode)
        sent = [bad]
        if chance.random() < 0.3:  # a later frame, while a run goes on
            good = opening(subprotocol, "ticker", parameters={"ticks": 3})
            sent.insert(0, Frame(right, good.encode() if isinstance(good, str) else good).serialize(mask=True))
        return number, await outcome(services[1].port, subprotocol, *sent)

    outcomes = await at_once(FRAMES, one)
    unclean = [(number, code) for number, code in outcomes if code not in CLEAN]
    assert not unclean, unclean[:10]
    codes: dict[int, int] = {}
    for _, code in outcomes:
        codes[code] = codes.get(code, 0) + 1
    print(f"{FRAMES} frames: {dict(sorted(codes.items()))}")
    await is_well(services)


def test_random_frames_that_are_well_formed(services: tuple[Service, Service]) -> None:
    """Whatever a well-formed ClientFrame asks, filled at random, gets a clean close."""

    @settings(max_examples=max(10, FRAMES // 200), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(messages(ClientFrame.DESCRIPTOR), min_size=5, max_size=20))
    def check(batch: list[ClientFrame]) -> None:
        async def send() -> None:
            end = Frame(Opcode.CLOSE, (1000).to_bytes(2, "big")).serialize(mask=True)
            for frame in batch:
                data = Frame(Opcode.BINARY, frame.SerializeToString()).serialize(mask=True)
                assert await outcome(services[1].port, PROTO, data, end) in CLEAN

        asyncio.run(send())

    check()


@pytest.mark.parametrize("which", [0, 1], ids=["engine", "gateway"])
async def test_strings(services: tuple[Service, Service], which: int) -> None:
    """Raw bytes on either port get an answer or an end, and hurt nobody."""
    starts = [
        b"",
        b"GET / HTTP/1.1\r\n",
        HANDSHAKE[:60],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ]

    async def one(number: int) -> None:
        chance = random.Random(SEED * 1_000_003 + number)
        reader, writer = await asyncio.open_connection("127.0.0.1", services[which].port)
        try:
            writer.write(chance.choice(starts) + chance.randbytes(chance.randrange(300)))
            writer.write_eof()
            async with asyncio.timeout(30 * UNIT):
                await reader.read()
        except OSError:
            pass  # it was ended while we still wrote
        finally:
            writer.close()

    await at_once(STRINGS // 2, one)
    await is_well(services)
