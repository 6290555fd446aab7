from agents import Agent, function_tool


@function_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"7 degrees in {city}"


agent = Agent(name="weather", tools=[weather])
