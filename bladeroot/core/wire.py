"""Messages as bytes: attrs classes <-> msgpack. The one door to msgpack; no I/O.

`encode` is deterministic: the same message gives the same bytes, which is what gets signed. `decode`
takes a size limit and believes nothing: whatever does not fit the class is one `NetworkError`. Keys that
the class does not have are passed over, so that an older blade reads a newer root.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

import cattrs
import cattrs.errors
import msgpack

from bladeroot.errors import BladerootError, NetworkError

_Message = TypeVar("_Message")

_DAMAGE_HINT = "it may come from a newer version of bladeroot, or be damaged"


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    for plain in (str, int, bool, bytes, float):
        converter.register_structure_hook(plain, _strictly)
    return converter


def _strictly(value: Any, expected: type[Any]) -> Any:
    """Take a plain value only if it already is one: the network does not get to have things converted."""
    if issubclass(expected, Enum):  # a StrEnum is a str to the converter
        return expected(value)
    if type(value) is not expected and not (expected is float and type(value) is int):
        raise TypeError(f"expected {expected.__name__}, found {type(value).__name__}")
    return value


_converter = _make_converter()


def encode(message: Any) -> bytes:
    """A message (an attrs instance) as msgpack."""
    packed = msgpack.packb(_converter.unstructure(message), use_bin_type=True)
    assert isinstance(packed, bytes)  # noqa: S101 - narrows an untyped library's return
    return packed


def decode(
    message_class: type[_Message], data: bytes, limit_bytes: int, *, most_containers: int | None = None
) -> _Message:
    """The message that the bytes are. Raises NetworkError for anything else, or for more than the limit.

    `most_containers` (lists and maps) is for large messages from anybody: an empty list is one byte here,
    and 64 in memory.
    """
    name = message_class.__name__
    if len(data) > limit_bytes:
        raise NetworkError(f"{name} of {len(data)} bytes is larger than the limit of {limit_bytes}")
    try:
        hooks = {} if most_containers is None else _make_counting_hooks(most_containers)
        plain = msgpack.unpackb(data, raw=False, strict_map_key=True, **hooks)
        return _converter.structure(plain, message_class)
    except BladerootError as error:
        raise NetworkError(f"{name}: {error}", error.hint) from error
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
        msgpack.exceptions.UnpackException,
        cattrs.errors.BaseValidationError,
    ) as error:
        raise NetworkError(f"not a valid {name}: {error}", _DAMAGE_HINT) from error


def _make_counting_hooks(most: int) -> dict[str, Callable[[Any], Any]]:
    left = most

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {most} lists and maps")
        return container

    return {"list_hook": count, "object_hook": count}
