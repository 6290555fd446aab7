from pydantic_ai import Agent


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"7 degrees in {city}"


agent = Agent("openai:gpt-5", tools=[weather])
