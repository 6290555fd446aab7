"""What the broker does not carry, and why: in a sentence for whoever wrote the agent."""

import json

TYPE = "runwire_broker"


class Refusal(Exception):  # noqa: N818 - as its reader reads it
    """A call that is not carried."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def body(self) -> bytes:
        """Write it as the SDKs of model servers read it."""
        return json.dumps({"error": {"message": str(self), "type": TYPE, "code": self.code}}).encode()
