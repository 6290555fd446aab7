"""What whoever operates an engine sees of it, and may do. The rest of the engine knows nothing of this."""
