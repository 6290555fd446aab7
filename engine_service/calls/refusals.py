"""What becomes known of refusals: a line in the log, and a figure."""

from collections.abc import Callable

import structlog

from engine_service.runs.refusal import Code, Refusal
from runwire.service.rates import Rates

STRANGERS = 60
"""Lines a minute on refusals of whoever is not known: one who tries all day is not to fill the log."""


class Refusals:
    """Tells of them."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self.count = count
        """Counts one, by its reason, that is told of elsewhere."""
        self._rates = Rates(STRANGERS)
        self._log = structlog.get_logger()

    def tell(self, refusal: Refusal, user_id: str = "") -> None:
        """Tell of a call that was refused, and of whose, if that is known."""
        self.count(refusal.reason)
        if refusal.code is Code.UNAUTHENTICATED and self._rates.take(refusal.reason):
            return
        whose = {"user_id": user_id} if user_id else {}
        about = {"status": refusal.code.name, "reason": refusal.reason, "message": refusal.message}
        self._log.info("call refused", **about, **whose)
