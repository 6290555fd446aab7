"""What went wrong with a model, in a sentence."""

import pytest

from engine_service.runtime import failures


class APIError(Exception): ...


class APIStatusError(APIError):
    def __init__(self, status: int) -> None:
        self.status_code = status


class APIConnectionError(APIError): ...


@pytest.mark.parametrize(
    ("error", "says", "retryable"),
    [
        (APIStatusError(401), "its key is missing or wrong", False),
        (APIStatusError(503), "has a problem", True),
        (APIStatusError(400), "does not take this request", False),
        (APIConnectionError(), failures.UNREACHABLE, True),
        (APIError(), failures.BROKEN, True),
    ],
)
def test_exceptions_of_libraries(error: Exception, says: str, *, retryable: bool) -> None:
    """They are known by their status, and by their kind; also where another one was raised from them."""
    outer = RuntimeError("outer")
    outer.__cause__ = error
    for each in (error, outer):
        found = failures.of_exception(each)
        assert found
        assert says in str(found)
        assert found.retryable == retryable


def test_what_is_no_models() -> None:
    """Nothing is said of it; not even of one that was raised from itself."""
    assert failures.of_exception(KeyError("x")) is None
    round_about = ValueError("x")
    round_about.__cause__ = round_about
    assert failures.of_exception(round_about) is None


def test_when_to_come_back() -> None:
    """It is said where a server says it in seconds."""
    assert failures.retry_after({"retry-after": "7"}) == 7
    assert failures.retry_after({"retry-after": "Sat, 21 Nov 2026"}) is None
    assert failures.retry_after({}) is None
