"""The command `edge-gateway`."""

import asyncio
import os
import sys


def main() -> None:
    """Read the settings, and serve until told to stop. Exits with 2, after one line, when it cannot start."""
    # What gRPC's core has to say of a connection is said by the status of each call. Read at its import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from edge_gateway import app  # noqa: PLC0415
        from edge_gateway.settings import BootError, Settings  # noqa: PLC0415
        from runwire.service import log  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"edge-gateway: {missing.name} is not installed: pip install 'runwire[gateway]'\n")
        sys.exit(2)

    try:
        settings = Settings.load(sys.argv[1:])
        log.configure("gateway", settings.log_level)
        asyncio.run(app.serve(settings))
    except BootError as error:
        sys.stderr.write(f"{Settings.program}: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
