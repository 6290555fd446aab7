"""Where a caller is in a run, and what comes after a connection that ended. docs/clients.md has it as a table."""

import enum
import uuid

import grpc

from runwire.client.errors import RunwireError

PATIENCE = 60.0
"""Seconds without a word, until a run is given up; longer for one whose window is longer."""


class Next(enum.Enum):
    """What comes after a connection."""

    OVER = enum.auto()
    AGAIN = enum.auto()
    """Connect anew at once."""
    WAIT = enum.auto()
    """Connect anew after a pause."""
    RAISE = enum.auto()


class Position:
    """What is known of one run."""

    def __init__(self, run_id: str = "", *, window: float = 0.0, seq: int = 0, begun: bool = False) -> None:
        self.run_id = run_id or (str(uuid.uuid4()) if window else "")
        self.seq = seq
        """The last event that was given."""
        self.window = window
        self.begun = begun
        self.attempt = 0
        """How often it was tried in vain since the last word."""
        self.is_wanted = True
        """Whether it is to begin, if it hasn't."""
        self._resuming = False
        self._from = 0  # where the connection was to begin
        self._unsure = False  # it was asked for, and may have begun without our hearing of it
        self._taken = 0  # how often another took it over; each time we wait longer to take it back
        self._lost: float | None = None  # when the connection was lost, until there is a word again

    @property
    def is_there(self) -> bool:
        """Whether it has begun, or may have."""
        return self.begun or self._unsure

    @property
    def is_dropped(self) -> bool:
        """Whether it is not to begin any more, and hasn't."""
        return not (self.is_there or self.is_wanted)

    @property
    def patience(self) -> float:
        """Until when it is waited for, by the clock that `after` was told."""
        return (self._lost or 0.0) + max(self.window, PATIENCE)

    def connect(self) -> bool:
        """Tell whether the next connection joins the run, be it to see whether it has begun, or begins it."""
        self._resuming, self._from = self.is_there, self.seq
        return self._resuming

    def ask(self) -> None:
        """Ask for the run: it may begin from now on."""
        self._unsure |= self.window > 0

    def heard(self, run_id: str) -> None:
        """Something came."""
        self.run_id = run_id
        self.begun = True
        self._unsure = False
        self.attempt = 0
        self._lost = None

    def after(self, error: RunwireError | None, now: float) -> Next:
        """Say what comes after a connection that ended without the run's end: well, or with an error."""
        if self.is_dropped:
            return Next.OVER
        if error is None:  # all of it was read before, unless it breaks off
            return Next.OVER if self._resuming and self._from == self.seq else Next.RAISE
        if self._unsure and (learnt := self._learn(error.code, now)):
            return learnt
        if not self._resuming and not error.retry:
            self._unsure = False  # it was refused
        if not error.retry or (self.begun and not self.window):
            return Next.RAISE
        self._taken += error.code is grpc.StatusCode.ABORTED
        return self._patiently(now)

    def _learn(self, code: grpc.StatusCode, now: float) -> Next | None:
        """Say what it means that a run which may have begun is not there, or is."""
        if code is grpc.StatusCode.ALREADY_EXISTS:
            self.begun = True
            return Next.AGAIN
        if code is not grpc.StatusCode.NOT_FOUND or not self._resuming:
            return None
        existed, self.begun, self._unsure = self.begun, False, False  # it had not begun, or was about to
        if not self.is_wanted:
            return Next.OVER
        return self._patiently(now) if existed else Next.AGAIN

    @property
    def vain(self) -> int:
        """How long to wait, as a number of attempts."""
        return max(self.attempt - 1, self._taken)

    def _patiently(self, now: float) -> Next:
        self._lost = now if self._lost is None else self._lost
        self.attempt += 1
        return Next.WAIT if now <= self.patience else Next.RAISE
