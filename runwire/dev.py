"""The command `runwire`: `runwire dev` starts both services on this machine, and says where the console is.

It stands beside the services and talks to them as any user does: by their commands, settings and addresses.
"""

import argparse
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from types import FrameType

SERVICES = ("engine_service", "edge_gateway")
NEEDS = {"grpc_health": "engine", "websockets": "gateway"}
"""What each service cannot be without, and the extra that brings it."""
READY = 200
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Processes = list[subprocess.Popen[bytes]]


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser("runwire", description="Runs agents, and shows what they are doing.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dev = commands.add_parser(
        "dev",
        help="start both services on this machine, for whoever writes agents",
        description="Starts both services in development mode, uses agents anew when their files change, and says "
        "where the console is. Ctrl-C stops both. Settings are taken from the environment: RUNWIRE_ENGINE_..., "
        "RUNWIRE_GATEWAY_...",
    )
    dev.add_argument("agents", nargs="*", help="module, module:object or name=module:object; without any: a demo")
    sys.exit(develop(parser.parse_args().agents))


def develop(agents: list[str]) -> int:
    """Run both services until Ctrl-C, or until one of them ends."""
    if missing := [extra for package, extra in NEEDS.items() if not importlib.util.find_spec(package)]:
        sys.stderr.write(f"runwire dev: pip install 'runwire[{','.join(missing)}]'\n")
        return 2
    env = settings(agents)
    engine, gateway = env["RUNWIRE_ENGINE_LISTEN"], env["RUNWIRE_GATEWAY_LISTEN"]
    interrupted, stopping = threading.Event(), threading.Event()

    def interrupt() -> None:
        """Pass it on: a second one ends them at once."""
        interrupted.set()
        send(signal.SIGINT, services)

    def stop() -> None:
        """Ask them to stop, once: whoever is told twice ends at once."""
        if not stopping.is_set():
            stopping.set()
            send(signal.SIGTERM, services)

    # A port that is taken is said by the service itself; but whoever has it must not be taken for ours.
    ours = is_free(engine) and is_free(gateway)
    # In sessions of their own: Ctrl-C comes here alone, from a terminal as from anybody who sends it.
    services = [
        subprocess.Popen([sys.executable, "-m", service], env=env, start_new_session=True)  # noqa: S603 - our own
        for service in SERVICES
    ]
    on(signal.SIGINT, interrupt)
    on(signal.SIGTERM, stop)
    told = False
    while not interrupted.wait(1 if told else 0.1) and all(service.poll() is None for service in services):
        if ours and not told and is_ready(gateway):
            told = True
            say(f"Runwire is ready: http://{gateway}")
    if interrupted.is_set():
        say("stopping: runs have a moment to finish; Ctrl-C again ends them at once")
    else:
        stop()  # one ended by itself, and said why
    return max(abs(service.wait()) for service in services)


def settings(agents: list[str]) -> dict[str, str]:
    """Return the environment of both services: ours where nothing was said."""
    env = dict(os.environ)
    env.setdefault("RUNWIRE_ENGINE_LISTEN", "127.0.0.1:50051")
    env.setdefault("RUNWIRE_GATEWAY_LISTEN", "127.0.0.1:8080")
    env.setdefault("RUNWIRE_GATEWAY_ENGINE", env["RUNWIRE_ENGINE_LISTEN"])
    env.setdefault("RUNWIRE_ENGINE_RELOAD", "true")
    if not any(name.startswith("RUNWIRE_ENGINE_JWT_") for name in env):
        env.setdefault("RUNWIRE_ENGINE_DEVELOPMENT", "true")  # who tries it has no keys yet
    if agents:
        env["RUNWIRE_ENGINE_AGENTS"] = ",".join(agents)
        env.setdefault("RUNWIRE_ENGINE_DEMO_AGENTS", "false")  # who has agents need not see ours
    # What is named lies where the command is given: for the engine, and for those that it starts.
    paths = [str(Path.cwd()), *filter(None, [env.get("PYTHONPATH")])]
    return env | {"PYTHONPATH": os.pathsep.join(paths)}


def on(number: signal.Signals, act: Callable[[], None]) -> None:
    """Do something when a signal comes."""

    def hear(_: int, __: FrameType | None) -> None:
        act()

    signal.signal(number, hear)


def say(text: str) -> None:
    """Say something to whoever sits there."""
    sys.stdout.write(f"\n  {text}\n\n")
    sys.stdout.flush()


def send(number: signal.Signals, services: Processes) -> None:
    """Send a signal to those that still run."""
    for service in services:
        if service.poll() is None:
            service.send_signal(number)


def is_free(address: str) -> bool:
    """Tell whether nobody listens on an address."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port))).close()
    except (OSError, ValueError):
        return True
    return False


def is_ready(gateway: str) -> bool:
    """Tell whether the gateway serves, and reaches the engine."""
    try:
        with DIRECT.open(f"http://{gateway}/readyz", timeout=2) as answer:
            return bool(answer.status == READY)
    except (OSError, HTTPException):
        return False


if __name__ == "__main__":
    main()
