"""What runs beside user code, in processes of their own: never gRPC."""
