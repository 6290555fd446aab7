"""Agents that tests run."""
