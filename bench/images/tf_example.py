"""A tf.train.Example, a map from names to lists of bytes or integers, without protobuf.

Source   tensorflow/core/example/feature.proto and the wire format of protocol buffers
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Tuple, Union

Value = Union[bytes, int]
Example = Dict[str, List[Value]]

_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5
_BYTES_LIST, _INT64_LIST = 1, 3


def parse(data: bytes) -> Example:
    """The bytes and integers of a tf.train.Example by name, without floats.

    Raises ValueError if the data is no tf.train.Example.
    """
    values: Example = {}
    try:
        for _, features in _fields(memoryview(data), 1):
            for _, entry in _fields(features, 1):
                parts = dict(_fields(entry, 1, 2))
                values[bytes(parts[1]).decode()] = _values(parts.get(2, memoryview(b"")))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no tf.train.Example: {error}") from None
    return values


def _values(feature: memoryview) -> List[Value]:
    values: List[Value] = []
    for kind, items in _fields(feature, _BYTES_LIST, _INT64_LIST):
        for _, item in _fields(items, 1):
            if kind == _BYTES_LIST:
                values.append(bytes(item))
            elif isinstance(item, int):
                values.append(_signed(item))
            else:
                values += [_signed(number) for number in _packed(item)]
    return values


def _fields(data: memoryview, *wanted: int) -> Iterator[Tuple[int, Any]]:
    """The number and content of each wanted field of a message: an int, or a view of the bytes."""
    at = 0
    content: Any
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            content, at = _varint(data, at)
        elif kind == _LENGTH:
            length, at = _varint(data, at)
            content, at = data[at : at + length], at + length
        elif kind in (_EIGHT, _FOUR):
            content, at = data[at:at], at + (8 if kind == _EIGHT else 4)
        else:
            raise ValueError(f"field of kind {kind}")
        if at > len(data):
            raise ValueError("cut off")
        if tag >> 3 in wanted:
            yield tag >> 3, content


def _varint(data: memoryview, at: int) -> Tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("number too long")


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def example(values: Mapping[str, Union[Value, List[int]]]) -> bytes:
    """A tf.train.Example, by name with one value of bytes, or with integers."""
    entries = b""
    for name, value in values.items():
        if isinstance(value, bytes):
            feature = _field(_BYTES_LIST, _field(1, value))
        else:
            numbers = [value] if isinstance(value, int) else value
            feature = _field(_INT64_LIST, _field(1, b"".join(map(_encoded, numbers))))
        entries += _field(1, _field(1, name.encode()) + _field(2, feature))
    return _field(1, entries)


def _field(number: int, content: bytes) -> bytes:
    return _encoded(number << 3 | _LENGTH) + _encoded(len(content)) + content


def _encoded(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
