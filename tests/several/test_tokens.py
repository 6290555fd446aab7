"""What one user may use of models in a day is counted over all engines that share a store."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.jail.conftest import told, tried
from tests.support.clients import Caller, caller
from tests.support.services import engine as start_engine
from tests.support.services import until
from tests.support.upstream import upstream
from tests.support.valkey import Valkey


async def asked(user: Caller) -> tuple[int, str]:
    """Ask a model for 30 tokens' worth."""
    body = {"model": "m", "messages": [{"role": "user", "content": "words"}], "stream": True}
    status, _, answer = told(await tried(user, f"ask_broker {json.dumps({'body': body})}"))
    return status, answer


@pytest.mark.force
async def test_what_a_user_may_use_in_a_day(store: Valkey, tmp_path: Path) -> None:
    """What is used at one engine is used at the other; who has used it all is told so; others have their own."""
    key = tmp_path / "key"
    key.write_text("a key")
    with upstream() as server:
        settings: dict[str, Any] = {
            "STORE": store.url,
            "UPSTREAMS": f"openai={server.url}",
            "UPSTREAM_KEYS": f"openai={key}",
            "TOKENS_PER_USER_PER_DAY": "50",
        }
        agents = "tests.agents.prisoners"
        with start_engine(agents=agents, **settings) as one, start_engine(agents=agents, **settings) as other:
            async with caller(one.address) as here, caller(other.address) as there, caller(other.address, "bob") as bob:
                assert (await asked(here))[0] == 200
                assert (await asked(there))[0] == 200
                status, answer = await asked(here)
                assert (status, json.loads(answer)["error"]["code"]) == (402, "tokens_per_user_per_day")
                assert (await asked(bob))[0] == 200
                store.kill()
                await until(lambda: any("store" in str(record.get("event")) for record in one.records))
                assert (await asked(bob))[0] in {200, 402}, "without the store, each engine counts by itself"
