"""Values of Arrow's tables, as JSON has them."""

from typing import Any

import pyarrow as pa

from data.schemes.records import as_json


def value(scalar: pa.Scalar) -> Any:
  """A cell as `as_json` writes it.

  What Python has no value for, such as a time in the year 30,000, is what
  Arrow writes, or null where it writes nothing. Raises UnicodeDecodeError.
  """
  try:
    return as_json(scalar.as_py())
  except UnicodeDecodeError:
    raise
  # A ValueError: nanoseconds, without pandas.
  except (ValueError, OverflowError, pa.ArrowException):
    pass
  try:
    return scalar.cast(pa.string()).as_py()
  except pa.ArrowException:
    return None
