"""Starts both services, says where the console is, and waits for both to stop after Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

ENGINE = os.environ.get("RUNWIRE_ENGINE_LISTEN", "127.0.0.1:50051")
os.environ.setdefault("RUNWIRE_GATEWAY_ENGINE", ENGINE)
GATEWAY = os.environ.get("RUNWIRE_GATEWAY_LISTEN", "127.0.0.1:8080")
if not any(name.startswith("RUNWIRE_ENGINE_JWT_") for name in os.environ):
    os.environ.setdefault("RUNWIRE_ENGINE_DEVELOPMENT", "true")  # who tries it has no keys yet
COMMANDS = ("engine-service", "edge-gateway")

Processes = list[subprocess.Popen[bytes]]


def main() -> int:
    """Run until Ctrl-C, or until one of the services ends."""
    interrupted = threading.Event()
    # Ctrl-C reaches the services too, since they share the terminal: they drain, and here they are waited for. Whoever
    # asked them once more to stop would end them at once.
    signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    # A port that is taken is said by the service itself; but whoever has it must not be taken for ours.
    ours = is_free(ENGINE) and is_free(GATEWAY)
    services = [subprocess.Popen([Path(sys.executable).parent / command]) for command in COMMANDS]
    signal.signal(signal.SIGTERM, lambda *_: stop(services))
    told = False
    while not interrupted.wait(1 if told else 0.1) and all(service.poll() is None for service in services):
        if ours and not told and is_ready():
            told = True
            print(f"\n  Runwire is ready: http://{GATEWAY}\n", flush=True)
    if interrupted.is_set():
        print("\n  stopping: runs have a moment to finish; Ctrl-C again ends them at once\n", flush=True)
    else:
        stop(services)  # one ended by itself, and said why
    return max(service.wait() for service in services)


def stop(services: Processes) -> None:
    """Ask those that still run to stop."""
    for service in services:
        if service.poll() is None:
            service.terminate()


def is_free(address: str) -> bool:
    """Tell whether nobody listens on an address."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return not port.isdecimal() or probe.connect_ex((host, int(port))) != 0


def is_ready() -> bool:
    """Tell whether the gateway serves, and reaches the engine."""
    try:
        with urllib.request.urlopen(f"http://{GATEWAY}/readyz", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
