"""Every gRPC status to one close code."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.close_codes import MAX_REASON, SENTENCES, closing, shortened

TABLE = {
    "OK": 1000, "CANCELLED": 4001, "UNKNOWN": 4002, "INVALID_ARGUMENT": 4003, "DEADLINE_EXCEEDED": 4004,
    "NOT_FOUND": 4005, "ALREADY_EXISTS": 4006, "PERMISSION_DENIED": 4007, "RESOURCE_EXHAUSTED": 4008,
    "FAILED_PRECONDITION": 4009, "ABORTED": 4010, "OUT_OF_RANGE": 4011, "UNIMPLEMENTED": 4012, "INTERNAL": 4013,
    "UNAVAILABLE": 4014, "DATA_LOSS": 4015, "UNAUTHENTICATED": 4016,
}  # fmt: skip


@pytest.mark.parametrize("status", grpc.StatusCode)
def test_the_table_is_total(status: grpc.StatusCode) -> None:
    """Each status has a code, and a sentence that fits."""
    code, reason = closing(status)
    assert code == TABLE[status.name]
    assert reason == SENTENCES[status]
    assert len(reason.encode()) <= MAX_REASON


def test_the_table_has_nothing_else() -> None:
    """No status is in the table that gRPC doesn't have."""
    assert {status.name for status in grpc.StatusCode} == TABLE.keys()


@given(st.text())
def test_a_reason_always_fits(sentence: str) -> None:
    """Whatever the status said, the reason is at most 123 bytes of valid UTF-8."""
    assert len(closing(grpc.StatusCode.INTERNAL, sentence).reason.encode()) <= MAX_REASON


def test_a_long_sentence_is_cut_between_characters() -> None:
    """A sentence that is too long ends in an ellipsis, never in half a character."""
    assert shortened("é" * 100) == "é" * 60 + "…"
    assert shortened("a" * 123) == "a" * 123
