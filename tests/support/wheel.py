"""The wheel, as it is shipped."""

import subprocess
import sys
from pathlib import Path

from tests.support.services import ROOT


def built(place: Path) -> Path:
    """Build this checkout's wheel in a folder, and return it."""
    command: list[str | Path] = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = place.glob("*.whl")
    return wheel
