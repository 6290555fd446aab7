"""Starts both services, says where the console is, and stops both on Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

CONSOLE = f"http://{os.environ.get('RUNWIRE_GATEWAY_LISTEN', '127.0.0.1:8080')}"
COMMANDS = ("engine-service", "edge-gateway")


def main() -> int:
    """Run until Ctrl-C, or until one of the services ends."""
    # Ctrl-C reaches the services too, since they share the terminal: here it only has to be outlived.
    signal.signal(signal.SIGINT, lambda *_: None)
    services = [subprocess.Popen([Path(sys.executable).parent / command]) for command in COMMANDS]
    signal.signal(signal.SIGTERM, lambda *_: stop(services))
    told = False
    while all(service.poll() is None for service in services):
        if not told and is_ready():
            told = True
            print(f"\n  Runwire is ready: {CONSOLE}\n", flush=True)
        time.sleep(1 if told else 0.1)
    stop(services)
    return max(service.wait() for service in services)


def stop(services: list[subprocess.Popen[bytes]]) -> None:
    """Ask those that still run to stop."""
    for service in services:
        if service.poll() is None:
            service.terminate()


def is_ready() -> bool:
    """Tell whether the gateway serves, and reaches the engine."""
    try:
        with urllib.request.urlopen(f"{CONSOLE}/readyz", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
