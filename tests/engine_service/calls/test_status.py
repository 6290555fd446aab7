"""Refusals as gRPC's callers get them."""

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from edge_gateway.close_codes import closing
from engine_service.calls.status import status_of
from engine_service.runs.refusal import DOMAIN, Code, Refusal, exists, invalid, too_many, unavailable


@pytest.mark.parametrize("code", Code)
def test_codes_are_grpcs(code: Code) -> None:
    """Each code is the status of its name, and a close code less 4000."""
    status = grpc.StatusCode[code.name]
    assert status.value[0] == code
    assert closing(status)[0] == 4000 + code


def _details(refusal: Refusal) -> tuple[Status, dict[str, bytes]]:
    told = status_of(refusal)
    assert (told.code.value[0], told.details) == (refusal.code, refusal.message)
    [encoded] = [value for key, value in told.trailing_metadata if key == "grpc-status-details-bin"]
    status = Status.FromString(encoded)
    return status, {detail.type_url.rpartition("/")[2]: detail.value for detail in status.details}


@pytest.mark.parametrize(("refuse", "code"), [(too_many, 8), (unavailable, 14)])
def test_a_reason_and_when_to_come_back(refuse: object, code: int) -> None:
    """For programs: the reason, ours, and the delay."""
    status, details = _details(refuse("Not now.", "BUSY", 1.5))  # type: ignore[operator]
    assert status.code == code
    info = ErrorInfo.FromString(details["google.rpc.ErrorInfo"])
    assert (info.reason, info.domain) == ("BUSY", DOMAIN)
    delay = RetryInfo.FromString(details["google.rpc.RetryInfo"]).retry_delay
    assert delay.ToMilliseconds() == 1500


def test_all_that_is_wrong() -> None:
    """Each field that is wrong is named, with why, for people and for programs."""
    status, details = _details(invalid({"input": "is too long", "run_id": "is none"}))
    violations = BadRequest.FromString(details["google.rpc.BadRequest"]).field_violations
    assert {each.field: each.description for each in violations} == {"input": "is too long", "run_id": "is none"}
    assert status.message == "The request is not valid. input: is too long; run_id: is none"


def test_an_id_that_is_taken() -> None:
    """It says which."""
    assert exists("123").message == "There is a run with the id 123 already."
