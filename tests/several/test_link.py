"""The way to the store."""

import asyncio

from engine_service.stores.valkey.link import link
from tests.support.valkey import Valkey

STEPS = 40
"""Turns of the loop within which something is cancelled: sending and hearing an answer take fewer."""


async def test_whoever_is_cancelled_hears_of_it(store: Valkey) -> None:
    """A cancellation ends what asks the store, whenever it comes: or an engine would wait for it at its end."""
    here = link(store.url)
    try:
        await here.redis.ping()  # there is a connection
        cancelled = 0
        for client in (here.redis, here.waiting):
            for turns in range(STEPS):
                asking = asyncio.create_task(client.ping())
                for _ in range(turns):
                    await asyncio.sleep(0)
                if asking.cancel():
                    await asyncio.wait((asking,))
                    assert asking.cancelled(), f"{turns} turns after its beginning"
                    cancelled += 1
        assert cancelled
        assert await here.redis.ping(), "and who comes later has an answer of their own"
        assert await here.redis.echo("mine") == b"mine"
    finally:
        await here.close()
