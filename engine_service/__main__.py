"""The command `engine-service`."""

import asyncio
import os
import sys
from pathlib import Path

OPERATORS = ("ps", "stop")
"""What an operator does with an engine that serves: these are for a terminal."""


def main() -> None:
    """Read the settings, and serve until told to stop. Exits with 2, after one line, when it cannot start."""
    # gRPC's core would add lines of its own to the one line in which we say why a boot failed. Read at its import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if sys.argv[1:2] and sys.argv[1] in OPERATORS:
        from engine_service.operations import command  # noqa: PLC0415

        sys.exit(command.main(sys.argv[1:]))
    # Agents may be named that lie where the command is given, as with `python -m`.
    sys.path.insert(0, str(Path.cwd()))
    try:
        from engine_service import app  # noqa: PLC0415
        from engine_service.settings import BootError, Settings  # noqa: PLC0415
        from engine_service.wire import RegistryError  # noqa: PLC0415
        from runwire.service import log  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        sys.stderr.write(f"engine-service: {missing.name} is not installed: pip install 'runwire[engine]'\n")
        sys.exit(2)

    try:
        settings = Settings.load(sys.argv[1:])
        log.configure("engine", settings.log_level)
        asyncio.run(app.serve(settings))
    except (BootError, RegistryError) as error:
        sys.stderr.write(f"{Settings.program}: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
