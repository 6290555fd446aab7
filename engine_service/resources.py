"""What an agent's runs need of a cluster, as its author says it: for both sides."""

import json
import math
from collections.abc import Mapping
from typing import Any, cast

KINDS: Mapping[str, tuple[type, ...]] = {
    "num_cpus": (int, float),
    "num_gpus": (int, float),
    "memory": (int, float),
    "accelerator_type": (str,),
    "resources": (dict,),
    "runtime_env": (dict,),
}
"""What can be said: options of a Ray actor, by the names that it gives them."""
WORDS = {float: "a number", str: "a text", dict: "a dict"}
MOST = 16 * 1024
"""Bytes of it."""


def written(said: object) -> str:
    """Write it down. Raises ValueError."""
    if not isinstance(said, Mapping):
        raise ValueError(f"is no dict: {said!r}"[:100])  # noqa: TRY004 - whoever said it has given a wrong value
    return _checked(json.dumps(dict(cast("Mapping[str, Any]", said)), default=_refuse))


def read(text: str) -> dict[str, Any]:
    """Read what was written down. Raises ValueError."""
    wanted: dict[str, Any] = json.loads(_checked(text)) if text else {}
    return wanted


def _checked(text: str) -> str:
    wanted = json.loads(text)
    if len(text) > MOST:
        raise ValueError(f"has more than {MOST} bytes")
    if not isinstance(wanted, dict):
        raise ValueError("is no dict")  # noqa: TRY004 - whoever said it has given a wrong value
    for name, value in cast("dict[str, Any]", wanted).items():
        if name not in KINDS:
            raise ValueError(f"has {name!r}, which is none of {', '.join(KINDS)}")
        if type(value) not in KINDS[name]:
            wanted_kind = WORDS[KINDS[name][-1]]
            raise ValueError(f"has {name}={value!r}"[:100] + f", which has to be {wanted_kind}")
        amounts = value.values() if name == "resources" else [value] if isinstance(value, int | float) else []
        if not all(type(each) in {int, float} and 0 <= each < math.inf for each in amounts):
            raise ValueError(f"has {name}={value!r}, which is no amount"[:100])
    return text


def _refuse(value: object) -> object:
    raise ValueError(f"has {value!r}, which is no plain value"[:100])
