"""Paths that a command shall write: refused where no file system has them."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from train.errors import Refusal

# Of the names in a path, whatever the machine has.
_NO_PATH = (
  errno.ENOENT,
  errno.ENOTDIR,
  errno.EEXIST,
  errno.ELOOP,
  errno.ENAMETOOLONG,
)


def check_path(flag: str, path: str) -> None:
  """A folder or file to write must be on a file system."""
  if "://" in path:
    raise Refusal(
      f"--{flag}={path}: files are written and renamed in place, which a "
      "bucket cannot do; mount it, and give the path"
    )
  folders = Path(path).absolute().parents
  if flag == "workdir":
    folders = (Path(path).absolute(), *folders)
  with making(f"--{flag}={path}"):
    Path(path).exists()
    for folder in folders:
      if folder.exists() and not folder.is_dir():
        raise Refusal(f"--{flag}={path}: {folder} is a file; choose a folder")


@contextlib.contextmanager
def making(setting: str) -> Iterator[None]:
  """Inside, a folder is looked for and made; a path that cannot be is refused.

  What else keeps it from being made is left to `machine_errors`.

  Args:
    setting: what gives the folder, and its value.

  Raises:
    Refusal: such a path.
  """
  try:
    yield
  except OSError as error:
    if error.errno not in _NO_PATH:
      raise
    # Not caused by it: this says all, and names the setting.
    raise Refusal(
      f"{setting}: {error.filename} cannot be made ({error.strerror}): choose "
      "another path"
    ) from None
