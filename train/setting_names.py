"""Names of settings, in errors of what is given their values.

The library's errors name its own keywords, which are right for who calls it.
"""

import contextlib
import re
from collections.abc import Iterator


@contextlib.contextmanager
def naming(
  key: str = "", value: object = None, **keywords: str
) -> Iterator[None]:
  """Inside, an error names what the configuration calls it.

  Args:
    key: what the error is about, unless it says so itself.
    value: of `key`, which the error shall show too.
    keywords: the key that was given as a keyword to what is called.

  Raises:
    ValueError: in the place of a ValueError or an OSError that did not.
  """
  try:
    yield
  except (ValueError, OSError) as error:
    text = str(error)
    for keyword, name in keywords.items():
      text = re.sub(rf"(?<![\w.]){keyword}=", f"{name} = ", text)
    if key and key not in text:
      shown = value is None or str(value) in text
      text = f"{key}: {text}" if shown else f"{key} = {value!r}: {text}"
    if text == str(error):
      raise
    raise ValueError(text) from error
