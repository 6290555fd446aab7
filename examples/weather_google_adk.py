from google.adk.agents import Agent
from google.adk.models.lite_llm import LiteLlm


def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"7 degrees in {city}"


agent = Agent(name="weather", model=LiteLlm("openai/gpt-5"), tools=[weather])
