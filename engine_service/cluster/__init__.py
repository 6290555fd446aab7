"""Runs on a Ray cluster: the driver, a process of the engine's, and the actors that have runs' processes."""
