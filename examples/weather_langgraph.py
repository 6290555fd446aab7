from langchain.agents import create_agent


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"7 degrees in {city}"


agent = create_agent("openai:gpt-5", [weather])
