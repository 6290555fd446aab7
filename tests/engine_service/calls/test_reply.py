"""One call's stream, on its way out."""

from runwire.v1.engine_pb2 import RunResponse

from engine_service.calls.reply import head, quiet


def test_the_first_message() -> None:
    """What a stream's first message says besides events: whose it is, and how long it is quiet at most."""
    response = RunResponse.FromString(head("run") + quiet(1.25))
    assert (response.run_id, response.heartbeat.seconds, response.heartbeat.nanos) == ("run", 1, 250_000_000)
