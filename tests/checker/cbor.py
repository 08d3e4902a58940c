"""Deterministic CBOR of SPEC.md section 1: one value, one encoding. Maps are `Map` objects that keep their pairs."""

DEPTH_MAX = 16


class Refused(Exception):
    """Why bytes are not a frame: depth, truncated, form, trailing, head, order or shape."""


class Map:
    """A map as its pairs in the order of their encoding."""

    def __init__(self, pairs):
        self.pairs = list(pairs)

    def get(self, key):
        for known, value in self.pairs:
            if known == key and type(known) is type(key):
                return value
        raise KeyError(key)

    def has(self, key):
        return any(known == key and type(known) is type(key) for known, _ in self.pairs)

    def __eq__(self, other):
        return isinstance(other, Map) and self.pairs == other.pairs


def _head(data, at):
    """Major type, argument, offset behind the head, and whether the head is the shortest one."""
    if at >= len(data):
        raise Refused("truncated")
    major, small = data[at] >> 5, data[at] & 0x1F
    if small < 24:
        return major, small, at + 1, True
    if small > 27 or major == 7:
        raise Refused("form")
    size = 1 << (small - 24)
    if at + 1 + size > len(data):
        raise Refused("truncated")
    argument = int.from_bytes(data[at + 1 : at + 1 + size], "big")
    least = {1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}[size]
    return major, argument, at + 1 + size, argument >= least


def _walk(data):
    """Structure alone: every length against the bytes present, depth, and forms that do not exist here."""
    at, open_items = 0, []
    while True:
        major, argument, at, _ = _head(data, at)
        items = 0
        if major in (2, 3):
            if argument > len(data) - at:
                raise Refused("truncated")
            at += argument
        elif major in (4, 5):
            items = argument * (major - 3)
            if items > len(data) - at:
                raise Refused("truncated")
        elif major == 6 or (major == 7 and argument not in (20, 21, 22)):
            raise Refused("form")
        if items:
            if len(open_items) >= DEPTH_MAX:
                raise Refused("depth")
            open_items.append(items)
            continue
        while open_items:
            open_items[-1] -= 1
            if open_items[-1]:
                break
            open_items.pop()
        if not open_items:
            if at != len(data):
                raise Refused("trailing")
            return


def _read(data, at):
    start = at
    major, argument, at, shortest = _head(data, at)
    if not shortest:
        raise Refused("head")
    if major == 0:
        return argument, at
    if major == 1:
        return -1 - argument, at
    if major == 2:
        return data[at : at + argument], at + argument
    if major == 3:
        try:
            return data[at : at + argument].decode("utf-8"), at + argument
        except UnicodeDecodeError:
            raise Refused("shape") from None
    if major == 4:
        items = []
        for _ in range(argument):
            item, at = _read(data, at)
            items.append(item)
        return items, at
    if major == 5:
        pairs, last = [], None
        for _ in range(argument):
            from_key = at
            key, at = _read(data, at)
            encoded = data[from_key:at]
            if last is not None and encoded <= last:
                raise Refused("order")
            last = encoded
            value, at = _read(data, at)
            pairs.append((key, value))
        return Map(pairs), at
    return {20: False, 21: True, 22: None}[data[start] & 0x1F], at


def decode(data):
    """Reads one frame or raises Refused."""
    data = bytes(data)
    _walk(data)
    value, at = _read(data, 0)
    if at != len(data):
        raise Refused("trailing")
    return value


def _write_head(major, argument):
    for small, size in ((None, 0), (24, 1), (25, 2), (26, 4), (27, 8)):
        if size == 0 and argument < 24:
            return bytes([major << 5 | argument])
        if size and argument < 1 << (8 * size):
            return bytes([major << 5 | small]) + argument.to_bytes(size, "big")
    raise ValueError("too large for CBOR")


def encode(value):
    """Writes a value; maps as Map or dict, their keys in the bytewise order of their encodings."""
    if value is False:
        return b"\xf4"
    if value is True:
        return b"\xf5"
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return _write_head(0, value) if value >= 0 else _write_head(1, -1 - value)
    if isinstance(value, (bytes, bytearray)):
        return _write_head(2, len(value)) + bytes(value)
    if isinstance(value, str):
        text = value.encode("utf-8")
        return _write_head(3, len(text)) + text
    if isinstance(value, (list, tuple)):
        return _write_head(4, len(value)) + b"".join(encode(item) for item in value)
    pairs = value.items() if isinstance(value, dict) else value.pairs
    written = sorted((encode(key), encode(item)) for key, item in pairs)
    return _write_head(5, len(written)) + b"".join(key + item for key, item in written)
