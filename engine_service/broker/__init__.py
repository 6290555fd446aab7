"""The broker: a process that carries runs' calls to model servers, and alone has their keys.

The engine starts it, tells it of runs by their tokens, and hears from it what their calls took.
"""
