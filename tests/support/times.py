"""How long something may take, all of it in one unit: a slower machine needs another unit, and no more."""

import os

UNIT = float(os.environ.get("TEST_UNIT", "1"))
"""Seconds."""

PATIENCE = 20 * UNIT
"""After so long something that must happen has not happened."""

HELD = 0.1 * UNIT
"""What one callback may take of its loop's thread, in services that run strictly, and so at a third of their speed."""
