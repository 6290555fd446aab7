"""A run's own folder: made when it is first asked for, and gone with its run."""

import shutil
import tempfile
from pathlib import Path


class Folder:
    """Where a run may keep files."""

    def __init__(self, path: str = "") -> None:
        """Name the folder, if it is somebody else's to take away."""
        self._path = path
        self._is_ours = not path

    @property
    def path(self) -> Path:
        """The folder, which is there from now on."""
        if not self._path:
            self._path = tempfile.mkdtemp(prefix="runwire-run-")
        path = Path(self._path)
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def close(self) -> None:
        """Take it away if it is ours."""
        if self._is_ours and self._path:
            shutil.rmtree(self._path, ignore_errors=True)
