"""Runs agents from Python, over gRPC.

async with Client("127.0.0.1:50051", token="…") as client:
    async for event in client.run("triage", "My invoice is wrong", resume_window=60):
        match event:
            case AgentMessage(delta=delta):
                print(delta, end="")
"""

from runwire.client.client import Client as Client
from runwire.client.errors import EndError as EndError
from runwire.client.errors import LostError as LostError
from runwire.client.errors import RefusedError as RefusedError
from runwire.client.errors import RunwireError as RunwireError
from runwire.client.events import AgentCancelled as AgentCancelled
from runwire.client.events import AgentCompleted as AgentCompleted
from runwire.client.events import AgentFailed as AgentFailed
from runwire.client.events import AgentInfo as AgentInfo
from runwire.client.events import AgentMessage as AgentMessage
from runwire.client.events import AgentRecovered as AgentRecovered
from runwire.client.events import AgentReported as AgentReported
from runwire.client.events import AgentStarted as AgentStarted
from runwire.client.events import AgentThinking as AgentThinking
from runwire.client.events import Event as Event
from runwire.client.events import InputAnswered as InputAnswered
from runwire.client.events import InputRequested as InputRequested
from runwire.client.events import ModelCalled as ModelCalled
from runwire.client.events import ModelUsage as ModelUsage
from runwire.client.events import Question as Question
from runwire.client.events import RunInfo as RunInfo
from runwire.client.events import ToolCompleted as ToolCompleted
from runwire.client.events import ToolExecuting as ToolExecuting
from runwire.client.events import Usage as Usage
from runwire.client.plain import PlainClient as PlainClient
from runwire.client.plain import PlainRun as PlainRun
from runwire.client.run import Run as Run
