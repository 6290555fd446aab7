"""A client that does what runwire.js does: it joins its run again whenever its connection is lost."""

import asyncio
import random
import uuid
from typing import Any

import orjson
from websockets.exceptions import ConnectionClosed

from tests.support.clients import JSON, socket

COME_BACK = {1006, 1012, 4008, 4010, 4014}
EXISTS, NOT_FOUND = 4006, 4005
LOST = (ConnectionClosed, OSError, TimeoutError, EOFError)


class Lasting:
    """One resumable run through a gateway, and every event of it that came."""

    def __init__(self, address: str, user: str, silence: float = 60) -> None:
        self.run_id = str(uuid.uuid4())
        self.seqs: list[int] = []
        self.ending = self.reason = ""
        self.recoveries = 0
        """How often another engine went on with it."""
        self.losses = 0
        """How often the connection was lost."""
        self._address = address
        self._user = user
        self._silence = silence
        self._texts: list[str] = []
        self._said: list[tuple[int, str]] = []
        self._begun = False

    @property
    def valid(self) -> list[str]:
        """What it said, without what is void."""
        return [text for _, text in self._said]

    async def run(self, agent: str, window: float = 60, **parameters: Any) -> list[str]:
        """Run an agent to its end, and return what it said."""
        asked = {"agent": agent, "runId": self.run_id, "resumeWindow": f"{window}s", "parameters": parameters}
        while not self.ending:
            resume = {"runId": self.run_id, "afterSeq": self.seqs[-1] if self.seqs else 0}
            code = await self._connection({"resume": resume} if self._begun else {"run": asked})
            if self.ending:
                break
            self.losses += 1
            if code == EXISTS:
                self._begun = True
            elif code == NOT_FOUND and not self.seqs:
                self._begun = False  # it was about to begin, and then did not
            else:
                assert code in COME_BACK, f"{self.run_id} closed with {code} after {self.seqs[-1:]}"
                await asyncio.sleep(random.uniform(0, 0.1))  # as browsers do: they don't come all at once
        return self._texts

    async def _connection(self, frame: dict[str, Any]) -> int:
        """Read one connection to its end, and return its close code."""
        code = 1006
        try:
            async with socket(self._address, JSON, open_timeout=self._silence, close_timeout=0.1) as connection:
                await connection.send(orjson.dumps({"accessToken": f"dev:{self._user}", **frame}).decode())
                try:
                    while True:
                        async with asyncio.timeout(self._silence):
                            self._take(orjson.loads(await connection.recv()))
                finally:
                    code = connection.close_code or 1006
        except LOST:
            pass
        except Exception as error:
            if type(error).__module__.startswith("websockets"):
                return 1006  # cut while it was being opened
            raise
        return code

    def _take(self, response: dict[str, Any]) -> None:
        assert response["runId"] == self.run_id
        self._begun = True
        for event in response.get("events", ()):
            self.seqs.append(event["seq"])
            if "agentMessage" in event:
                self._texts.append(event["agentMessage"]["delta"])
                self._said.append((event["seq"], event["agentMessage"]["delta"]))
            if "agentRecovered" in event:
                self.recoveries += 1
                saved_at = event["agentRecovered"].get("checkpointSeq", 0)
                self._said = [(seq, text) for seq, text in self._said if seq <= saved_at]
            ended = {"agentCompleted", "agentFailed", "agentCancelled"} & event.keys()
            if ended and "/" not in event["agent"]:
                self.ending = ended.pop()
                self.reason = event[self.ending].get("reason", "")
