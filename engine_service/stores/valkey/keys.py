"""What is called how in the store. What is one user's lies together, wherever in a cluster that is."""

import uuid
from typing import NamedTuple
from urllib.parse import quote, unquote

FORMAT = "3"
"""Of what is written there: engines that write another do not share it."""


class Run(NamedTuple):
    """One run's keys."""

    user_id: str
    run_id: str
    pays: str
    """Whose limits count."""
    member: str
    """What it is called in lists of all users' runs."""
    about: str
    """A hash: its engine, what is known of it, its epoch, and with which position each epoch began."""
    log: str
    """A stream: its events."""
    places: str
    """Of whose limits count."""
    kept: str
    """Its user's."""


class Name:
    """By what an engine is known. One that others may have given up is another one from then on."""

    def __init__(self) -> None:
        self.now = self.first = uuid.uuid4().hex
        self.all = [self.now]
        """With those that it had, oldest first."""

    def renew(self) -> None:
        """Be another one."""
        self.now = uuid.uuid4().hex
        self.all.append(self.now)


class Keys:
    """The keys of one fleet of engines."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.format = f"{prefix}:format"
        self.engines = f"{prefix}:engines"
        """A sorted set: until when each engine's lease is."""

    def places(self, user_id: str) -> str:
        """Return a sorted set: until when each of a user's places is held."""
        return f"{self._of(user_id)}:places"

    def kept(self, user_id: str) -> str:
        """Return a sorted set: until when each of a user's resumable runs is kept, at most."""
        return f"{self._of(user_id)}:kept"

    def rate(self, user_id: str, what: str) -> str:
        """Return when a user's rate of something is used up to."""
        return f"{self._of(user_id)}:rate:{what}"

    def spent(self, user_id: str, day: str) -> str:
        """Return how many tokens a user's runs have used on a day."""
        return f"{self._of(user_id)}:tokens:{day}"

    def run(self, user_id: str, run_id: str, pays: str = "") -> Run:
        """Return a run's; whose limits count is told where it isn't its user, or doesn't matter."""
        pays = pays or user_id
        user, members = self._of(user_id), [quote(user_id, safe=""), run_id]
        member = " ".join(members if pays == user_id else [*members, quote(pays, safe="")])
        about, log = f"{user}:run:{run_id}", f"{user}:log:{run_id}"
        return Run(user_id, run_id, pays, member, about, log, self.places(pays), self.kept(user_id))

    def listed(self, member: str) -> Run:
        """Return a run's, by what it is called in lists."""
        quoted, run_id, *pays = member.split(" ")
        return self.run(unquote(quoted), run_id, *map(unquote, pays))

    def owned(self, engine: str) -> str:
        """Return a set: the resumable runs that an engine has."""
        return f"{self._prefix}:engine:{engine}:runs"

    def bus(self, engine: str) -> str:
        """Return the channel on which an engine is spoken to."""
        return f"{self._prefix}:engine:{engine}"

    def bell(self, engine: str) -> str:
        """Return a stream that wakes an engine's one reader."""
        return f"{self._prefix}:engine:{engine}:bell"

    def _of(self, user_id: str) -> str:
        return f"{self._prefix}:{{{quote(user_id, safe='')}}}"
