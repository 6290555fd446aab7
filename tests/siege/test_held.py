"""Law 5, by force: whatever comes, nobody's loop is held. Callbacks are timed in the services, by their own time."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from runwire.v1.engine_pb2 import RunRequest
from runwire.v1.gateway_pb2 import ClientFrame
from websockets.exceptions import ConnectionClosed

from tests.support.clients import HANDSHAKE, JSON, PROTO, caller, frames, socket, status
from tests.support.services import WATCH, engine, gateway, held
from tests.support.times import UNIT

pytestmark = [pytest.mark.measures, pytest.mark.force]

MIB = 1024 * 1024 - 100


def run(parameters: str) -> str:
    return '{"run": {"agent": "echo", "parameters": {"a": ' + parameters + "}}}"


def framed(tag: int, body: bytes) -> bytes:
    """Write a field of bytes, with as long a length as there can be."""
    size = len(body)
    return bytes([tag, *(size >> shift & 0x7F | 0x80 for shift in (0, 7, 14)), size >> 21]) + body


def parameters(value: bytes) -> bytes:
    """Put an encoded Value where a frame has its parameters."""
    return framed(0x52, framed(0x32, framed(0x0A, b"\x0a\x01a" + framed(0x12, value))))


def history(many: int) -> str:
    message = '{"role":"ROLE_USER","text":"x"}'
    return '{"run": {"agent": "echo", "history": [' + ",".join([message] * many) + "]}}"


FRAMES: dict[str, str | bytes] = {
    "empty objects": run("[" + "{}," * (MIB // 3 - 20) + "{}]"),
    "empty strings": run("[" + '"",' * (MIB // 3 - 20) + '""]'),
    "digits": run("[" + "1," * (MIB // 2 - 40) + "1]"),
    "one number": run("1" * (MIB - 60)),
    "members": run("{" + ",".join(f'"{number:06}":1' for number in range(MIB // 12)) + "}"),
    "as many values as may be": run("{" + ",".join(f'"{number}":{{}}' for number in range(9_998)) + "}"),
    "as many values as may be, as deep as may be": run('{"a":' * 55 + "[" + "{}," * 9_900 + "{}]" + "}" * 55),
    "as much history as may be": history(10_000),
    "too much history": history(MIB // 35),
    "escapes": run('"' + "\\u00e9" * (MIB // 6 - 20) + '"'),
    "backslashes": run('"' + "\\\\" * (MIB // 2 - 40) + '"'),
    "quotes": run('"' + '\\"' * (MIB // 2 - 40) + '"'),
    "four-byte characters": run('"' + "\U0001f600" * (MIB // 4 - 30) + '"'),
    "brackets": "[" * MIB,
    "nothing": " " * MIB,
    "text without an end": '"' * MIB,
    "colons": ":" * MIB,
    "binary: empty values": parameters(b"\x32" + framed(0x32, b"\x0a\x00" * (MIB // 2 - 40))[1:]),
    "binary: one value said again": parameters(b"\x08\x00" * (MIB // 2 - 40)),
    "binary: history": framed(0x52, b"\x2a\x00" * (MIB // 2 - 10)),
    "binary: unknown fields": b"\xf8\x07\x01" * (MIB // 3),
    "binary: unknown fields inside": parameters(b"\xf8\x07\x01" * (MIB // 3 - 30)),
    "binary: depth": b"\x52" * MIB,
}


@pytest.mark.parametrize("name", FRAMES)
async def test_a_frame(name: str) -> None:
    """Whatever 1 MiB holds, four at once, no callback holds the gateway's loop, nor the engine's, over 20 ms."""
    frame = FRAMES[name]
    subprotocol = JSON if isinstance(frame, str) else PROTO
    with engine(folder=WATCH) as back, gateway(back.address, folder=WATCH) as front:

        async def attack() -> int:
            async with socket(front.address, subprotocol) as connection:
                await connection.send(frame)
                await frames(connection)
                return connection.close_code or 0

        codes = await asyncio.gather(*(attack() for _ in range(4)))
        assert set(codes) <= {1000, 4003}, codes
        assert [record for service in (front, back) for record in held(service)] == []


FLOODS = {
    "fragments of nothing": b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 170_000,
    "fragments of one byte": b"\x01\x81\0\0\0\0x" + b"\x00\x81\0\0\0\0x" * 150_000,
    "pings": b"\x89\x80\0\0\0\0" * 170_000,
    "pongs": b"\x8a\x80\0\0\0\0" * 170_000,
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_frames(name: str) -> None:
    """However small the frames are that 1 MiB has, no callback holds the gateway's loop over 20 ms."""
    with gateway("127.0.0.1:1", folder=WATCH, OPEN_TIMEOUT="3") as front:

        async def attack() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(HANDSHAKE + FLOODS[name])
            while await reader.read(64 * 1024):
                pass
            writer.close()

        await asyncio.gather(*(attack() for _ in range(4)), return_exceptions=True)
        assert held(front) == []


async def _send_without_end(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()


@pytest.mark.parametrize("between", [b"", b"\x8a\x80\0\0\0\0" * 400])
async def test_pings_whose_answers_nobody_reads(between: bytes) -> None:
    """Whoever pings without end, and reads no answer, is cut off before they fill the gateway's memory."""
    with gateway("127.0.0.1:1", OPEN_TIMEOUT="60") as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=1024)
        writer.write(HANDSHAKE)
        ping = b"\x89\xfd\0\0\0\0" + b"x" * 125
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(_send_without_end(writer, ping * 100 + between), 30 * UNIT)
        writer.close()
        assert reader


def refused(agent: str) -> bytes:
    """Encode a request with 256 KiB of parameters, as many of them as that can be."""
    values = ListValue.FromString(b"\x0a\x00" * (128 * 1024 - 40))
    return RunRequest(agent=agent, parameters=Struct(fields={"a": Value(list_value=values)})).SerializeToString()


@pytest.mark.parametrize("agent", ["nobody", "echo"])
async def test_refused_calls(agent: str) -> None:
    """16 callers of an agent that isn't there, or with too many values, hold the engine's loop for 20 ms at most."""
    with engine(folder=WATCH) as back:
        data = refused(agent)

        async def attack(user: int) -> None:
            async with caller(back.address, f"user{user}") as attacker:
                call: Any = attacker.channel.unary_stream("/runwire.v1.EngineService/Run", None, None)
                for _ in range(20):
                    expected = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}
                    assert await status(call(data, metadata=attacker.metadata)) in expected

        await asyncio.gather(*(attack(user) for user in range(16)))
        assert held(back) == []


async def test_refusals_take_from_the_rate() -> None:
    """Whoever is refused again and again is told so by the rate, in the end."""
    with engine(RUNS_PER_MINUTE="5") as back:
        async with caller(back.address) as alice:
            codes = [await status(alice.call("nobody")) for _ in range(7)]
            assert codes == [grpc.StatusCode.NOT_FOUND] * 5 + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 2


async def test_a_request_that_grpc_would_not_carry() -> None:
    """A frame over what gRPC takes is told as wrong, 4003, and not as something to come back with."""
    with engine() as back, gateway(back.address, MAX_FRAME_BYTES="16MiB") as front:
        for subprotocol in (JSON, PROTO):
            async with socket(front.address, subprotocol) as connection:
                text = "x" * 5 * 1024 * 1024
                asked = RunRequest(agent="echo", input=text)
                frame = ClientFrame(run=asked).SerializeToString()
                await connection.send(run('"' + text + '"') if subprotocol == JSON else frame)
                with pytest.raises(ConnectionClosed):
                    await connection.recv()
            assert connection.close_code == 4003
