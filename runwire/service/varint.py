"""Numbers as protobuf writes them: seven bits a byte, the lowest first."""

MORE = 0x80
"""In a byte: more follow."""
MAX_SHIFT = 63


class VarintError(ValueError):
    """Too long for a number."""


def encoded(number: int) -> bytes:
    """Write a number."""
    if number < MORE:
        return bytes((number,))
    written = bytearray()
    while number >= MORE:
        written.append(number % MORE | MORE)
        number >>= 7
    written.append(number)
    return bytes(written)


def decoded(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Read the number at a position, and return where it ends. Raises IndexError when the data ends before it does."""
    byte = data[at]
    if byte < MORE:
        return byte, at + 1
    number = shift = 0
    while byte >= MORE:
        number |= byte % MORE << shift
        shift += 7
        if shift > MAX_SHIFT:
            raise VarintError
        at += 1
        byte = data[at]
    return number | byte << shift, at + 1
