"""A first agent, which needs no model and no key."""

from engine_service import Agent, RunContext

TEAMS = {
    "billing": ("invoice", "refund", "charge", "payment", "price"),
    "accounts": ("password", "login", "sign", "email", "account"),
    "product": ("error", "crash", "slow", "bug", "broken"),
}


def lookup(request: str) -> dict[str, object]:
    """Find the team whose words a request uses most."""
    words = request.lower().split()
    hits = {team: sum(word.startswith(known) for word in words for known in terms) for team, terms in TEAMS.items()}
    team = max(hits, key=lambda name: hits[name])
    return {"team": team if hits[team] else "frontdesk", "hits": hits[team]}


class Triage(Agent):
    """Reads a support request, and says who takes care of it."""

    isolation = "task"

    async def run(self, context: RunContext, input: str) -> str:
        """Look for the words that tell a team."""
        await context.think("Whose words are these?")
        found = await context.call(lookup, request=input)
        return f"This goes to the {found['team']} team."
