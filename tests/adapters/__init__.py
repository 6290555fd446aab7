"""Agents of other people's frameworks."""
