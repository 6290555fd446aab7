"""A stream, as whoever takes a run over reads it."""

from runwire.v1 import events_pb2 as pb

from engine_service.stores.valkey.journal import EVENTS, FIRST
from engine_service.stores.valkey.takeover import _pieces
from engine_service.wire import event_frame, events_in


def entry(first: int, last: int) -> tuple[bytes, dict[bytes, object]]:
    events = b"".join(event_frame(pb.Event(seq=seq, agent="root")) for seq in range(first, last + 1))
    return f"1-{last}".encode(), {FIRST: str(first).encode(), EVENTS: events}


def numbers(*entries: tuple[bytes, dict[bytes, object]]) -> list[int]:
    pieces = _pieces(list(entries))
    found = [event.seq for piece in pieces for event in events_in(piece.events)]
    assert [number for piece in pieces for number in range(piece.first, piece.last + 1)] == found
    return found


def test_what_was_written_twice() -> None:
    """An entry whose confirmation was lost stands there again, in a longer one: its events count once."""
    assert numbers(entry(1, 5), entry(6, 9), entry(6, 12), entry(13, 13)) == list(range(1, 14))
    assert numbers(entry(1, 5), entry(2, 4), entry(6, 7)) == list(range(1, 8))


def test_a_gap() -> None:
    """Where something is missing, what is behind it is there, and nothing else."""
    assert numbers(entry(1, 5), (b"2-0", {FIRST: b"0"}), entry(7, 9)) == [7, 8, 9]
    assert numbers() == []
