"""The command `edge-gateway`."""

import asyncio
import os
import sys


def main() -> None:
    """Read the settings, and serve until told to stop. Exits with 2, after one line, when it cannot start."""
    # What gRPC's core has to say of a connection is said by the status of each call. Read at its import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from edge_gateway import app, logs, settings  # noqa: PLC0415

    try:
        chosen = settings.load(sys.argv[1:])
        logs.configure()
        asyncio.run(app.serve(chosen))
    except settings.BootError as error:
        sys.stderr.write(f"{settings.PROGRAM}: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
