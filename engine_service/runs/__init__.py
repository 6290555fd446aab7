"""One run's life, knowing neither gRPC nor processes."""
