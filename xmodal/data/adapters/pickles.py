"""The data of a pickle, read without running it.

A pickle is a program that may call anything, so none is loaded here. This reads the instructions that put plain data
together (numbers, texts, bytes, lists, tuples, sets, mappings) and carries out nothing else. An object becomes the
mapping of its attributes, whatever its class; NumPy's scalars become numbers. What else is called is refused.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Iterator
from typing import Any

_MARK = object()
_LARGEST = 256_000_000


class _Name(str):
    """A class or function that the pickle names. It is only a name."""


class _Made:
    """What a call would have made: the name and what it was given."""

    def __init__(self, name: str, given: Any) -> None:
        self.name, self.given = name, given


def read_plain_pickle(content: bytes) -> Any:
    """The value of a pickle of plain data.

    Args:
        content: The pickle, of protocol 0 to 5.

    Raises:
        ValueError: If it is damaged, too large, or does something else than put plain data together.
    """
    if len(content) > _LARGEST:
        raise ValueError(f"it is {len(content)} bytes long, more than the {_LARGEST} that plain data are read from")
    machine = _Machine()
    instructions = pickletools.genops(content)
    try:
        while (instruction := _next(instructions)) is not None:
            opcode, argument, _ = instruction
            if opcode.name == "STOP":
                return machine.result()
            machine.step(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"it is no sound pickle ({error!r})") from error
    raise ValueError("it is cut short")


def _next(instructions: Iterator[Any]) -> Any:
    try:
        return next(instructions, None)
    except ValueError as error:
        raise ValueError(f"it is cut short or damaged ({error})") from error


class _Machine:
    """The stack and the memory that the instructions work on."""

    _constants = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
    # fmt: off
    _values = frozenset((
        "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
        "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
        "BINBYTES8", "BYTEARRAY8",
    ))
    # fmt: on
    _empty: dict[str, Callable[[], Any]] = {
        "EMPTY_DICT": dict,
        "EMPTY_LIST": list,
        "EMPTY_TUPLE": tuple,
        "EMPTY_SET": set,
    }  # fmt: skip

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self.stack) != 1 or isinstance(self.stack[0], (_Name, _Made)):
            raise ValueError("it does not hold one value of plain data")
        return self.stack[0]

    def step(self, name: str, argument: Any) -> None:
        if name in self._values:
            self.stack.append(argument)
        elif name in self._constants:
            self.stack.append(self._constants[name])
        elif name in self._empty:
            self.stack.append(self._empty[name]())
        elif name not in ("PROTO", "FRAME"):
            action = getattr(self, f"_{name.lower()}", None)
            if action is None:
                raise ValueError(f"it holds the instruction {name}, which plain data do not need")
            action(argument)

    # One method for each instruction that works on the stack; their names are those of pickletools.

    def _mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _since_mark(self) -> list[Any]:
        place = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _memoize(self, _: Any) -> None:
        self.memory[len(self.memory)] = self.stack[-1]

    def _binput(self, place: Any) -> None:
        self.memory[int(place)] = self.stack[-1]

    _long_binput = _put = _binput

    def _binget(self, place: Any) -> None:
        self.stack.append(self.memory[int(place)])

    _long_binget = _get = _binget

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _tuple1(self, _: Any) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _list(self, _: Any) -> None:
        self.stack.append(self._since_mark())

    def _append(self, _: Any) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    def _appends(self, _: Any) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def _additems(self, _: Any) -> None:
        items = self._since_mark()
        self._top(set).update(items)

    def _frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(self._since_mark()))

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append(dict(zip(items[::2], items[1::2], strict=True)))

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[key] = value

    def _setitems(self, _: Any) -> None:
        items = self._since_mark()
        self._top(dict).update(zip(items[::2], items[1::2], strict=True))

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"it adds to a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}")
        return self.stack[-1]

    def _global(self, name: Any) -> None:
        self.stack.append(_Name(str(name).replace(" ", ".")))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_Name(f"{module}.{name}"))

    def _newobj(self, _: Any) -> None:
        self.stack.pop()
        self._top(_Name)
        self.stack[-1] = {}  # an object: BUILD adds its attributes

    def _reduce(self, _: Any) -> None:
        given, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, _Name):
            raise ValueError("it calls what it has made")
        if name == "copy_reg._reconstructor" or name == "copyreg._reconstructor":
            self.stack.append({})
        elif name.endswith("multiarray.scalar"):
            self.stack.append(_scalar(*given))
        elif name == "numpy.dtype":
            self.stack.append(_Made(name, given))
        elif name == "_codecs.encode" and len(given) == 2 and given[1] == "latin1":
            self.stack.append(given[0].encode("latin-1"))  # how protocol 2 writes bytes
        else:
            raise ValueError(f"it calls {name}, which plain data do not need")

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], _Made):
            return  # a dtype's byte order: little in every file of today, and checked by the size of the bytes
        self._top(dict).update(state)


def _scalar(kind: Any, content: Any) -> float | int | bool:
    """A NumPy scalar from its type ("f8", "i4" ...) and its bytes."""
    code = kind.given[0] if isinstance(kind, _Made) else ""
    formats = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i", "u8": "<Q", "u4": "<I", "b1": "<?"}
    if code not in formats or not isinstance(content, bytes):
        raise ValueError(f"it holds a NumPy value of type {code!r}, which is not read")
    value: float | int | bool = struct.unpack(formats[code], content)[0]
    return value
