"""The folder that runs' own folders are in: an engine's, and gone with it, however that ends."""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

PREFIX = "runwire-engine-"


class Home:
    """Makes it, holds it as long as this process lives, and takes away what engines left that were killed."""

    def __init__(self, user: tuple[int, int] | None) -> None:
        self._outer, self._held = _made()
        self.path = f"{self._outer}/runs"
        """Where runs' folders are. Its name, and what it is, is not for their user to change."""
        os.mkdir(self.path, 0o700)  # noqa: PTH102 - a string, for others
        if user:
            Path(self._outer).chmod(0o711)
            os.chown(self.path, *user)

    def __enter__(self) -> Self:
        """Sweep, and be there."""
        for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            if (held := _hold(left)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(held)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it away."""
        shutil.rmtree(self._outer, ignore_errors=True)
        os.close(self._held)


def _made() -> tuple[str, int]:
    """Make a folder, and hold it. Another engine may find it before it is held, and take it for one that was left."""
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX)
        held = _hold(Path(path))
        if held is not None and Path(path).is_dir():
            return path, held


def _hold(folder: Path) -> int | None:
    """Hold a folder, as long as its descriptor is open; None if somebody else does, or it isn't one of an engine's."""
    with suppress(OSError):
        held = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
        else:
            return held
    return None
