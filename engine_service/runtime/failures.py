"""What went wrong with a model, as a sentence for whoever asked. No provider's own words: they may hold anything."""

from collections.abc import Mapping

from engine_service.runtime.agent import ModelError

UNREACHABLE = "The model cannot be reached. Try again in a moment."
BROKEN = "The model broke off in the middle of its answer. Try again."
REFUSED = "The model refused to answer that."
CONFUSED = "The model did not answer in the way it was asked to. Try again."
TOO_MUCH = "That took more of the model than a run may use."

UNAUTHENTICATED = frozenset({401, 403})
USED_UP = 402
TIMEOUT, TOO_MANY, SERVER, GATEWAY_TIMEOUT = 408, 429, 500, 504


def of_status(status: int, retry_after: float | None = None) -> ModelError:
    """Say what an HTTP status of a model's server means."""
    if status in UNAUTHENTICATED:
        return ModelError("The model's server does not know us: its key is missing or wrong. An operator has to look.")
    if status == USED_UP:
        return ModelError("That is all that may be used of models: by a run, by you today, or by all of us.")
    if status == TOO_MANY:
        when = f"in {retry_after:.0f} seconds" if retry_after else "in a moment"
        return ModelError(f"The model has too much to do. Try again {when}.", retryable=True)
    if status in {TIMEOUT, GATEWAY_TIMEOUT}:
        return ModelError("The model took too long to answer. Try again.", retryable=True)
    if status >= SERVER:
        return ModelError("The model's server has a problem. Try again in a moment.", retryable=True)
    return ModelError("The model's server does not take this request. An operator has to look.")


UNREACHED = {"APIConnectionError", "ConnectError"}
LOST = {"APIError", "ReadError", "RemoteProtocolError", "IncompleteRead", "ClientPayloadError"}
LATE = {"APITimeoutError", "ReadTimeout", "ConnectTimeout"}
"""What the libraries that call models call it, when a server is gone or slow, whosever they are."""


def of_exception(error: BaseException) -> ModelError | None:
    """Say what an exception of a model's library means; None for one that is no model's."""
    seen: BaseException | None = error
    known = set[int]()  # whoever raises an error from itself makes a circle
    while seen and id(seen) not in known:
        known.add(id(seen))
        status = getattr(seen, "status_code", None)
        kinds = {kind.__name__ for kind in type(seen).__mro__}
        if isinstance(status, int):
            return of_status(status, retry_after(getattr(getattr(seen, "response", None), "headers", {})))
        if kinds & LATE:
            return of_status(TIMEOUT)
        if kinds & (UNREACHED | LOST):
            return ModelError(UNREACHABLE if kinds & UNREACHED else BROKEN, retryable=True)
        seen = seen.__cause__ or seen.__context__
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return for how many seconds a server wants to be left alone."""
    try:
        return float(headers.get("retry-after", ""))
    except ValueError:
        return None
