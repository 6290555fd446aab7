"""The way to the store."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import structlog
from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from engine_service.stores.store import AwayError
from engine_service.stores.valkey.keys import FORMAT, Keys

SCHEMES = {"valkey": "redis", "valkeys": "rediss", "redis": "redis", "rediss": "rediss"}
PATIENCE = 2.0
"""Seconds that the store has to answer."""
CONNECTIONS = 32
"""Connections of an engine's, for what is answered at once; and as many for what waits there."""
BLOCK = 1.0
"""Seconds that a read waits there for something to come."""
PAUSE = 0.2
"""Seconds until something is tried again."""
AWAY = (RedisError, OSError)
"""What it means that the store cannot be reached, or does not do as it is told."""


class Attentive(Connection):
    """A connection that keeps no cancellation to itself.

    Until Python 3.12, `asyncio.wait_for`, by which redis-py sends, may: whoever then waits for our end waits for ever.
    """

    async def send_packed_command(
        self,
        command: bytes | str | Iterable[bytes],
        check_health: bool = True,  # noqa: FBT001, FBT002 - as redis-py calls it
    ) -> None:
        """Send, and raise CancelledError if that was asked for meanwhile."""
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        await super().send_packed_command(command, check_health)
        if task and task.cancelling() > before:
            await self.disconnect(nowait=True)  # its answer is nobody's
            raise asyncio.CancelledError


class AttentiveSSL(Attentive, SSLConnection):
    """The same with TLS."""


class Link(NamedTuple):
    """Connections to a store, and what is called how there."""

    redis: Any  # redis-py's types say of each answer all that it could be
    """For what is answered at once."""
    waiting: Any
    """For what waits there."""
    keys: Keys

    async def check(self) -> None:
        """See that the store is there, and may be used. Raises AwayError, with what an operator is to do."""
        try:
            about = await self.redis.info("memory")
            await self.redis.set(self.keys.format, FORMAT, nx=True)
            found = (await self.redis.get(self.keys.format)).decode()
        except (AuthenticationError, NoPermissionError) as error:
            raise AwayError(f"RUNWIRE_ENGINE_STORE: the store does not let us in: {error}") from error
        except AWAY as error:
            raise AwayError(f"RUNWIRE_ENGINE_STORE: the store cannot be reached: {error}") from error
        policy = about.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise AwayError(
                f"RUNWIRE_ENGINE_STORE: its maxmemory-policy is {policy}, and so it drops what runs depend on: "
                "set it to noeviction"
            )
        if found != FORMAT:
            raise AwayError(
                f"RUNWIRE_ENGINE_STORE: what is there is of format {found}, and this engine's is {FORMAT}: "
                "give engines of another version another prefix (?prefix=...), or empty the store"
            )

    async def close(self) -> None:
        """Close them."""
        await self.redis.aclose()
        await self.waiting.aclose()


def link(url: str) -> Link:
    """Make a link by its address: `valkey://`, `valkeys://` with TLS; the prefix of all keys as `?prefix=`."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    keys = Keys(query.pop("prefix", "runwire"))
    plain = urlunsplit(parts._replace(scheme=SCHEMES[parts.scheme], query=urlencode(query)))
    at_once = Retry(NoBackoff(), 0)  # whether something is to be done again is decided where it is done

    def client(patience: float) -> Redis:
        limits: dict[str, Any] = {"socket_timeout": patience, "socket_connect_timeout": PATIENCE}
        limits |= {"max_connections": CONNECTIONS, "timeout": PATIENCE}  # beyond it, one waits for one that is free
        pool = BlockingConnectionPool.from_url(plain, **limits, retry=at_once, protocol=2)
        pool.connection_class = AttentiveSSL if issubclass(pool.connection_class, SSLConnection) else Attentive
        return Redis.from_pool(pool)

    return Link(client(PATIENCE), client(PATIENCE + BLOCK), keys)


async def repeat(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do something for ever, and again after a moment where the store is away."""
    while True:
        try:
            await work()
        except AWAY:
            await asyncio.sleep(PAUSE)
        except Exception:  # noqa: BLE001 - what depends on it would be lost, and nobody would hear of it
            structlog.get_logger().exception("the store cannot be used")
            await asyncio.sleep(PAUSE)
