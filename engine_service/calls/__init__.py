"""One gRPC call: who calls, what is asked, and what is answered."""
