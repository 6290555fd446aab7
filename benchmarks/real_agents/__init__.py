"""Real frameworks' agents, beside the same in FastAPI: what it costs that each run has a process of its own."""
