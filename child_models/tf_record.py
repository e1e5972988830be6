"""Files of TensorFlow's record format, and protocol buffers, read without TensorFlow.

A record is its length, a checksum of that, its bytes, and a checksum of them; see
https://www.tensorflow.org/tutorials/load_data/tfrecord.  The checksums are not looked
at.  A message is a sequence of numbered fields; see
https://protobuf.dev/programming-guides/encoding.
"""

import os
import struct
from collections.abc import Iterator

_HEAD = struct.Struct("<Q4x")  # length, its checksum
_TAIL = 4  # bytes, the checksum of the record


def records(path: str | os.PathLike) -> Iterator[bytes]:
    """Yields the records of a file.

    Raises:
      ValueError: if the file ends within a record.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        while file.tell() < size:
            begin = file.tell()
            head = file.read(_HEAD.size)
            length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else size
            if length + _TAIL > size - file.tell():
                raise ValueError(
                    f"{path} is cut short or no record file: the record at byte "
                    f"{begin:,} is not whole"
                )
            yield file.read(length)
            file.seek(_TAIL, os.SEEK_CUR)


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the fields of a message, as (number, value).

    A value is an int of a varint, and the bytes of all else: 8 of a double, 4 of a
    float, those of a string or of another message.

    Raises:
      ValueError: if this is no message.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"field {number} has the unknown wire type {wire}")
        if at + length > len(message):
            raise ValueError(f"field {number} is cut short")
        yield number, message[at : at + length]
        at += length


def double(value: int | bytes) -> float:
    """The number that the 8 bytes of a field hold.

    Raises:
      ValueError: if these are no 8 bytes.
    """
    if not isinstance(value, bytes) or len(value) != 8:
        raise ValueError(f"{value!r} is no double")
    return struct.unpack("<d", value)[0]


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number in parts of 7 bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number is cut short")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
