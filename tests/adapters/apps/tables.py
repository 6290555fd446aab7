"""A server of tools (MCP) that asks in the middle of a call, as one writes it: a process of its own, over its pipes."""

from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel, Field

server = MCPServer("tables")


class Wish(BaseModel):
    seats: int = Field(ge=1, le=8)
    window: bool = False
    name: str | None = None


@server.tool()
async def book(context: Context) -> str:
    """Book a table."""
    reply = await context.elicit("For how many?", Wish)
    return f"{reply.action} {reply.data!r}" if reply.action == "accept" else reply.action


@server.tool()
async def pay(context: Context) -> str:
    """Take a deposit."""
    return (await context.elicit_url("Pay the deposit.", "https://example.com/pay", "deposit-1")).action


if __name__ == "__main__":
    server.run("stdio")
