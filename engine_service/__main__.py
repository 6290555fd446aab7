"""The command `engine-service`."""

import asyncio
import os
import sys
from pathlib import Path


def main() -> None:
    """Read the settings, and serve until told to stop. Exits with 2, after one line, when it cannot start."""
    # gRPC's core would add lines of its own to the one line in which we say why a boot failed. Read at its import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Agents may be named that lie where the command is given, as with `python -m`.
    sys.path.insert(0, str(Path.cwd()))
    from engine_service import app, logs, registry, settings  # noqa: PLC0415

    try:
        chosen = settings.load(sys.argv[1:])
        logs.configure()
        asyncio.run(app.serve(chosen))
    except (settings.BootError, registry.RegistryError) as error:
        sys.stderr.write(f"{settings.PROGRAM}: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
