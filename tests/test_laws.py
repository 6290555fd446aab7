"""The laws' page says what is there."""

import re

from tests.support.services import ROOT

LAWS = (ROOT / "docs" / "laws.md").read_text(encoding="utf-8")


def test_every_file_of_the_laws_is_there() -> None:
    """Each file that keeps a law, and each that proves it, exists; each law has both."""
    rows = [line.split("|") for line in LAWS.splitlines() if line.startswith("| **")]
    assert [row[1].strip()[2:4] for row in rows] == [f"{number}." for number in range(1, 10)]
    for _, _, keepers, proofs, *_ in rows:
        folder = ""
        for file in re.findall(r"`([\w.…]*/[\w/.]*)`", keepers + proofs):
            if file.startswith("…"):
                file = f"{folder}{file[1:]}"  # noqa: PLW2901 - the same folder as the one before
            folder = file.rpartition("/")[0]
            assert (ROOT / file).exists(), file
        assert "`tests/" in proofs
