"""What tests stand on: real services as real processes, and clients that talk to them over loopback."""
