"""What went wrong with a model, as a sentence for whoever asked. No provider's own words: they may hold anything."""

from engine_service.runtime.agent import ModelError

UNREACHABLE = "The model cannot be reached. Try again in a moment."
BROKEN = "The model broke off in the middle of its answer. Try again."
REFUSED = "The model refused to answer that."
CONFUSED = "The model did not answer in the way it was asked to. Try again."
TOO_MUCH = "That took more of the model than a run may use."

UNAUTHENTICATED = frozenset({401, 403})
TOO_MANY, TIMEOUTS, SERVER = 429, frozenset({408, 504}), 500


def of_status(status: int, retry_after: float | None = None) -> ModelError:
    """Say what an HTTP status of a model's server means."""
    if status in UNAUTHENTICATED:
        return ModelError("The model's server does not know us: its key is missing or wrong. An operator has to look.")
    if status == TOO_MANY:
        when = f"in {retry_after:.0f} seconds" if retry_after else "in a moment"
        return ModelError(f"The model has too much to do. Try again {when}.", retryable=True)
    if status in TIMEOUTS:
        return ModelError("The model took too long to answer. Try again.", retryable=True)
    if status >= SERVER:
        return ModelError("The model's server has a problem. Try again in a moment.", retryable=True)
    return ModelError("The model's server does not take this request. An operator has to look.")
