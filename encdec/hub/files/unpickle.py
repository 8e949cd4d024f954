"""Reads the pickle of a PyTorch state_dict without running any of its code.

A pickle is a program. This follows the instructions that a state_dict needs,
and knows the few names that it may call, none of which is imported. Values are
never printed: nested ones that share parts may be endless.
"""

import dataclasses
import io
import pickletools
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from encdec.hub.error_text import clipped, fault, quoted
from encdec.hub.files.mmap import WeightFileError

# In bytes; a tensor takes some 200.
MAX_PICKLE = 4 << 20
_STORAGES = {
  "DoubleStorage": np.dtype("<f8"),
  "FloatStorage": np.dtype("<f4"),
  "HalfStorage": np.dtype("<f2"),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ShortStorage": np.dtype("<i2"),
  "CharStorage": np.dtype("i1"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
}
_TENSORS = {
  "torch._utils._rebuild_tensor": 4,
  "torch._utils._rebuild_tensor_v2": 6,
}
_PARAMETERS = {
  "torch._utils._rebuild_parameter": 3,
  "torch._utils._rebuild_parameter_with_state": 4,
}
_ALLOWED = {
  "collections.OrderedDict",
  "torch.Size",
  *_TENSORS,
  *_PARAMETERS,
  *(f"torch.{name}" for name in _STORAGES),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_PUTS = ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE")
_GETS = ("BINGET", "LONG_BINGET", "GET")
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Instructions whose value is their argument.
_VALUES = {
  "INT", "LONG", "LONG1", "BININT", "BININT1", "BININT2", "BINFLOAT", "STRING",
  "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Name:
  """The name of a function or class that the pickle would call."""

  name: str


@dataclasses.dataclass(frozen=True)
class Storage:
  key: str
  dtype: np.dtype
  count: int


@dataclasses.dataclass(frozen=True, eq=False)
class StoredTensor:
  """A tensor as the pickle describes it: shape and strides are unchecked."""

  storage: Storage
  offset: int
  shape: Any
  strides: Any


@dataclasses.dataclass(frozen=True)
class Pickle:
  """A pickle's value, and the storages that it names."""

  value: Any
  storages: dict[str, Storage]

  def tensors(self, path: Path) -> dict[str, StoredTensor]:
    """The tensors of a flat dict; its other values are ignored.

    Raises:
      WeightFileError: it is no such dict.
    """
    if not isinstance(self.value, dict):
      raise WeightFileError(
        f"{path} holds no dict of tensors; save the model's state_dict"
      )
    for name, value in self.value.items():
      if isinstance(value, dict | list | tuple) and _holds_tensor(value):
        raise WeightFileError(
          f"{path} keeps tensors one level down, under {quoted(name)}; save "
          "that alone, which is the model's state_dict"
        )
    return {
      name: value
      for name, value in self.value.items()
      if isinstance(name, str) and isinstance(value, StoredTensor)
    }


def _holds_tensor(value: Any) -> bool:
  inner = value.values() if isinstance(value, dict) else value
  return any(isinstance(item, StoredTensor | dict) for item in inner)


def read_pickle(path: Path, stream: io.BytesIO) -> Pickle:
  """Reads one pickle, and leaves the stream at its end.

  Raises:
    WeightFileError: it ends early, is damaged, or calls what no weights need.
  """
  machine = _Machine(path)
  try:
    for code, argument, _ in pickletools.genops(stream):
      machine.step(code.name, argument)
  # Raised by an empty stack, an unknown memo index, a wrong type, bad bytes; a
  # text with an escape that is none is a warning, which may be an error.
  except (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    DeprecationWarning,
  ) as error:
    if isinstance(error, WeightFileError):
      raise
    raise WeightFileError(
      f"{path} is truncated or holds a damaged pickle ({fault(error)}); "
      "download or copy it again"
    ) from error
  return Pickle(machine.stack.pop(), machine.storages)


class _Machine:
  """The pickle machine: a stack and a memo; it changes only lists and dicts."""

  def __init__(self, path: Path):
    self.path = path
    self.stack: list[Any] = []
    self.marks: list[int] = []
    self.memo: dict[int, Any] = {}
    self.storages: dict[str, Storage] = {}

  def step(self, code: str, argument: Any) -> None:
    stack = self.stack
    if code in ("PROTO", "FRAME"):
      return
    if code in _VALUES:
      stack.append(argument)
    elif code in _CONSTANTS:
      stack.append(_CONSTANTS[code])
    elif code in _EMPTY:
      stack.append(_EMPTY[code]())
    elif code in _PUTS:
      index = len(self.memo) if code == "MEMOIZE" else argument
      self.memo[index] = stack[-1]
    elif code in _GETS:
      stack.append(self.memo[argument])
    elif code == "MARK":
      self.marks.append(len(stack))
    elif code == "TUPLE":
      stack.append(tuple(self._marked()))
    elif code in _TUPLES:
      stack.append(tuple(self._pop(_TUPLES[code])))
    elif code in ("APPEND", "APPENDS"):
      items = self._pop(1) if code == "APPEND" else self._marked()
      self._target(list).extend(items)
    elif code in ("SETITEM", "SETITEMS"):
      items = self._pop(2) if code == "SETITEM" else self._marked()
      self._set(items)
    elif code == "GLOBAL":
      stack.append(self._name(*argument.split(" ", 1)))
    elif code == "STACK_GLOBAL":
      stack.append(self._name(*self._pop(2)))
    elif code == "BINPERSID":
      stack.append(self._storage(*self._pop(1)))
    elif code == "REDUCE":
      stack.append(self._call(*self._pop(2)))
    elif code == "BUILD":
      # The attributes of an OrderedDict, such as a state_dict's versions.
      self._pop(1)
      self._target(dict)
    elif code == "STOP":
      if len(stack) != 1 or self.marks:
        raise ValueError(f"{len(stack)} values are left")
    else:
      raise WeightFileError(
        f"{self.path} wants the instruction {code}, which no weight file "
        "needs; nothing was run; do not trust this file"
      )

  def _pop(self, count: int) -> list[Any]:
    if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
      raise IndexError("the stack is too short")
    items = self.stack[-count:]
    del self.stack[-count:]
    return items

  def _marked(self) -> list[Any]:
    mark = self.marks.pop()
    items = self.stack[mark:]
    del self.stack[mark:]
    return items

  def _target(self, kind: type) -> Any:
    if not isinstance(self.stack[-1], kind):
      raise TypeError(f"no {kind.__name__} to be filled")
    return self.stack[-1]

  def _set(self, items: list[Any]) -> None:
    keys, values = items[::2], items[1::2]
    for key in keys:
      if not isinstance(key, str | int):
        raise TypeError(f"a key is a {type(key).__name__}")
    self._target(dict).update(zip(keys, values, strict=True))

  def _name(self, module: Any, name: Any) -> _Name:
    full = f"{module}.{name}"
    if full not in _ALLOWED:
      raise self._refused(full)
    return _Name(full)

  def _refused(self, what: str) -> WeightFileError:
    return WeightFileError(
      f"{self.path} wants {clipped(what)}, which no weight file needs; nothing "
      "was run; do not trust this file, or save the state_dict alone"
    )

  def _storage(self, saved: Any) -> Storage:
    if not isinstance(saved, tuple) or len(saved) not in (5, 6):
      raise ValueError("no storage is named")
    kind, cls, key, _, count, *view = saved
    name = cls.name.rpartition(".")[2] if isinstance(cls, _Name) else ""
    if kind != "storage" or name not in _STORAGES or view not in ([], [None]):
      raise self._refused("a storage of an unknown kind")
    if type(key) is not str or type(count) is not int or count < 0:
      raise ValueError("a storage has no name or no size")
    storage = Storage(key, _STORAGES[name], count)
    if self.storages.setdefault(key, storage) != storage:
      raise ValueError(f"storage {key!r} is of two kinds")
    return storage

  def _call(self, called: Any, arguments: Any) -> Any:
    name = called.name if isinstance(called, _Name) else ""
    if not isinstance(arguments, tuple):
      raise TypeError("no arguments of a call")
    if name == "collections.OrderedDict" and not arguments:
      return {}
    if name == "torch.Size" and len(arguments) == 1:
      return arguments[0]
    if name in _PARAMETERS and len(arguments) == _PARAMETERS[name]:
      if isinstance(arguments[0], StoredTensor):
        return arguments[0]
    elif name in _TENSORS and len(arguments) >= _TENSORS[name]:
      storage, offset, shape, strides, *rest = arguments
      # A flag of conjugation or negation changes what the bytes mean.
      if len(rest) == 3 and rest[2]:
        raise self._refused("tensors with flags")
      if isinstance(storage, Storage) and type(offset) is int:
        return StoredTensor(storage, offset, shape, strides)
    raise self._refused(f"a call of {name or 'what is no name'}")
