"""What both services are built on. Neither imports the other; this imports neither."""
