"""Digests tell contents apart, and parts from their sum."""

import hashlib

from data.io.digests import digest, file_digest, text_digest


def test_where_one_part_ends_counts():
  parts = (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], ["", "abc"], [])
  assert len({digest(each) for each in parts}) == len(parts)
  # A text is its bytes.
  assert digest(iter(["é"])) == digest(["é".encode()])


def test_digits_are_those_of_sha_256(tmp_path):
  """Names in a store are made of them: they may never change."""
  path = tmp_path / "file"
  path.write_bytes("é\r\n".encode())
  whole = hashlib.sha256("é\r\n".encode()).hexdigest()
  assert file_digest(path) == whole
  assert text_digest("é\r\n") == whole[:32]
  assert digest(["a"]) == hashlib.sha256(bytes(7) + b"\1a").hexdigest()[:32]
