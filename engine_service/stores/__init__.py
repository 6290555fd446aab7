"""What engines share, or one has for itself."""
