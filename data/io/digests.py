"""Digests: hex digits of SHA-256, by which contents are told apart."""

import hashlib
import os
from collections.abc import Iterable


def digest(parts: Iterable[str | bytes]) -> str:
  """32 digits of some texts or bytes, which are told apart from their sum."""
  total = hashlib.sha256()
  for part in parts:
    raw = part.encode() if isinstance(part, str) else part
    total.update(len(raw).to_bytes(8, "big") + raw)
  return total.hexdigest()[:32]


def text_digest(text: str) -> str:
  """32 digits of one text."""
  return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: str | os.PathLike[str]) -> str:
  """All 64 digits of a file's contents."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
