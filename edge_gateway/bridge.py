"""One socket is one stream."""

import asyncio

import grpc
import grpc.aio
from runwire.v1.gateway_pb2 import ClientFrame
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from edge_gateway.close_codes import Closing, closing
from edge_gateway.engine import Engine, Stream
from edge_gateway.frames import CODECS, Codec, FrameError

INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Bridge:
    """Carries a socket's run. Keeps nothing from one socket to the next."""

    def __init__(self, engine: Engine, open_timeout: float) -> None:
        self._engine = engine
        self._open_timeout = open_timeout
        self._codecs = {codec.subprotocol: codec for codec in CODECS}

    async def carry(self, socket: ServerConnection) -> None:
        """Serve a socket from its first frame to its end.

        Whoever ends first closes the socket, and closing it ends the other. A child task forwards the stream and then
        closes the socket; here the socket is read until it is closed, and then the child is cancelled. Reading must go
        on all the time: a socket that isn't read doesn't notice that its browser left.
        """
        codec = self._codecs[socket.subprotocol or CODECS[0].subprotocol]
        try:
            first = await self._first(socket, codec)
            if isinstance(first, Closing):
                await socket.close(*first)
                return
            stream = self._engine.open(first)
            forwarding = asyncio.create_task(_forward(stream, socket, codec))
            try:
                async for _ in socket:
                    await socket.close(*closing(INVALID, "Nothing more can be sent on this socket."))
            finally:
                # Cancelling the child inside `socket.send` would not cancel the stream.
                stream.cancel()
                forwarding.cancel()
                await asyncio.wait((forwarding,))
        except ConnectionClosed:
            pass  # the browser left: that is no error

    async def _first(self, socket: ServerConnection, codec: Codec) -> ClientFrame | Closing:
        """Wait for the frame that opens the run."""
        try:
            async with asyncio.timeout(self._open_timeout):
                frame = codec.decode(await socket.recv())
        except TimeoutError:
            return closing(grpc.StatusCode.DEADLINE_EXCEEDED, "Nothing was asked for in time.")
        except FrameError as error:
            return closing(INVALID, str(error))
        if frame.WhichOneof("frame") not in {"run", "resume"}:
            return closing(INVALID, "The first frame must be run or resume.")
        return frame


async def _forward(stream: Stream, socket: ServerConnection, codec: Codec) -> None:
    """Send what the engine streams, one frame a message, then close the socket as the stream ended."""
    try:
        async for response in stream:
            await socket.send(codec.encode(response))
        end = closing(grpc.StatusCode.OK)
    except grpc.aio.AioRpcError as error:
        end = closing(error.code(), _sentence(error))
    except ConnectionClosed:
        return
    await socket.close(*end)


def _sentence(error: grpc.aio.AioRpcError) -> str | None:
    """Return the engine's own sentence. A status that gRPC made by itself has none that a person should read."""
    trailers = error.trailing_metadata() or ()
    spoken = any(key == "grpc-status-details-bin" for key, _ in trailers)
    return error.details() if spoken else None
