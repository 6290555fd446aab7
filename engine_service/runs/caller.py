"""Who asks for something, and what they may."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Caller:
    """Who calls, as far as that is known for sure."""

    user_id: str
    """Whose runs they are."""
    service: str = ""
    """Who acts for that user, if it isn't they themselves."""
    claims: Mapping[str, Any] = field(default_factory=dict)
    """What agents hear of the caller."""
    agents: tuple[str, ...] | None = None
    """Patterns of the agents that may be run; None for all."""
    may_approve: bool = True
    """Whether questions may be answered that let a tool be called."""
    is_operator: bool = False

    @property
    def pays(self) -> str:
        """Whose limits count."""
        return self.service or self.user_id

    def may_run(self, agent: str) -> bool:
        """Tell whether an agent may be run."""
        return self.agents is None or any(fnmatchcase(agent, pattern) for pattern in self.agents)

    def may_see(self, service: str) -> bool:
        """Tell whether a run of the user's may be seen: a service sees those that it began."""
        return self.service in {"", service}
