"""What each run may use, and what it has used."""

from dataclasses import dataclass, field
from weakref import WeakSet

from engine_service.broker.messages import Grant
from engine_service.broker.refusal import Refusal
from engine_service.wire import PLACEHOLDER

AT_ONCE = 32
"""Calls of one run at once."""
CONNECTIONS = 2 * AT_ONCE
"""Of one run, calling or not."""
MOST_REFUSED = 200
"""Calls that are read and refused, of one run."""
MOST_ASKED = 16 * 1024 * 1024
"""Bytes that one run asks at once, all of its calls together: a few pictures."""
MOST_OF_ALL = 64 * MOST_ASKED
"""The same of all runs."""


@dataclass
class Account:
    """What somebody who pays may still use today; None for as much as they like."""

    left: int | None = None
    runs: int = 0


@dataclass
class Purse:
    """A run's."""

    grant: Grant
    account: Account
    spent: int = 0
    calls: int = 0
    asked: int = 0
    refused: int = 0
    told: int = 0
    connections: WeakSet[object] = field(default_factory=WeakSet[object])


class Purses:
    """All runs', by their tokens."""

    def __init__(self, tokens_per_run: int | None) -> None:
        self._asked = 0
        self._tokens_per_run = tokens_per_run
        self._purses: dict[str, Purse] = {}
        self._accounts: dict[str, Account] = {}

    def grant(self, grant: Grant) -> None:
        """Let a run begin."""
        if grant.token in self._purses:  # said twice, since we took another's place meanwhile
            return
        account = self._accounts.setdefault(grant.pays, Account())
        account.left = grant.left
        account.runs += 1
        self._purses[grant.token] = Purse(grant, account, grant.spent)

    def revoke(self, token: str) -> None:
        """Let a run end."""
        if purse := self._purses.pop(token, None):
            purse.account.runs -= 1
            if not purse.account.runs:
                self._accounts.pop(purse.grant.pays, None)

    def left(self, pays: str, tokens: int) -> None:
        """Hear what somebody may still use today."""
        if account := self._accounts.get(pays):
            account.left = tokens

    def is_known(self, token: str) -> bool:
        """Tell whether a token is a run's."""
        return token in self._purses

    def of(self, token: str) -> Purse:
        """Return whose token it is. Raises Refusal."""
        if token == PLACEHOLDER:
            raise Refusal(
                401,
                "placeholder",
                "This is the placeholder that clients are made with, and no run's key: make the client inside the run, "
                "where OPENAI_API_KEY and its like are the run's own, or set its api_key from there.",
            )
        if (purse := self._purses.get(token)) and purse.refused >= MOST_REFUSED:
            raise Refusal(429, "refused", f"This run was refused {MOST_REFUSED} times: it is not listened to any more.")
        if purse:
            return purse
        raise Refusal(401, "token", "This key is no run's that goes on here.")

    def open(self, purse: Purse) -> None:
        """Let a run call. Raises Refusal when it has used all that it may."""
        if self._tokens_per_run is not None and purse.spent >= self._tokens_per_run:
            raise Refusal(402, "tokens_per_run", f"This run has used the {self._tokens_per_run} tokens that a run may.")
        if purse.account.left is not None and purse.account.left <= 0:
            raise Refusal(402, "tokens_per_user_per_day", "Its user has used all tokens that one may in a day.")
        if purse.calls >= AT_ONCE:
            raise Refusal(429, "at_once", f"A run may have {AT_ONCE} calls at once.")
        purse.calls += 1

    def refuse(self, token: str, *, is_theirs: bool) -> bool:
        """Count a call that was not carried, be it for what was asked or not, and tell whether that is worth a word."""
        purse = self._purses[token]
        purse.refused += is_theirs
        purse.told += 1
        return purse.told <= MOST_REFUSED

    def connect(self, purse: Purse, connection: object) -> None:
        """Know a run's connection. Raises Refusal when it has too many."""
        purse.connections.add(connection)
        if len(purse.connections) > CONNECTIONS:
            raise Refusal(429, "connections", f"A run may have {CONNECTIONS} connections.")

    def ask(self, purse: Purse, size: int) -> None:
        """Let a run ask so many bytes more. Raises Refusal when these are too many."""
        if purse.asked + size > MOST_ASKED:
            raise Refusal(413, "size", f"A run may ask {MOST_ASKED >> 20} MiB at once, with all of its calls.")
        if self._asked + size > MOST_OF_ALL:
            raise Refusal(503, "busy", "Too much is asked at once. Try again in a moment.")
        purse.asked += size
        self._asked += size

    def close(self, purse: Purse, asked: int, tokens: int) -> None:
        """Take what a call took."""
        purse.calls -= 1
        purse.asked -= asked
        self._asked -= asked
        purse.spent += tokens
        if purse.account.left is not None:
            purse.account.left -= tokens
