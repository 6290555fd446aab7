"""An agent that writes events as no encoder would."""

from runwire.v1 import events_pb2 as pb

from engine_service import Agent, RunContext
from engine_service.wire import EVENT, frame

SEQ, AGENT, MESSAGE = (pb.Event(seq=2), pb.Event(agent="odd"), pb.Event(agent_message=pb.AgentMessage(delta="odd")))
ODD = frame(EVENT, b"".join(part.SerializeToString() for part in (MESSAGE, AGENT, SEQ)))
"""Its fields are in an order of their own."""
GARBAGE = b"\x12\x03\xff\xff\xff"


class Odd(Agent):
    """Says one thing past all that would encode it."""

    async def run(self, context: RunContext, input: str) -> str:
        writer = context._writer
        with writer._lock:
            writer._seq += 1
            writer._sink.write(GARBAGE if input == "garbage" else ODD)
        return "said"
