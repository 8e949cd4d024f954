"""The scheme of a file by its name."""

import pytest

from data.schemes.file_extensions import uri_of


@pytest.mark.parametrize(
  ("path", "uri"),
  [
    ("people.csv", "csv:people.csv"),
    ("a/b.c/people.TSV", "csv:a/b.c/people.TSV"),
    ("x.jsonl.gz", "jsonl:x.jsonl.gz"),
    ("x.csv.zst", "csv:x.csv.zst"),
    ("x.parquet", "parquet:x.parquet"),
    ("x.arrayrecord", "arrayrecord:x.arrayrecord"),
    ("me@home/x.csv", "csv:me@home/x.csv@all"),
    # These are read at places: they cannot be packed.
    ("x.parquet.gz", ""),
    ("x.txt", ""),
    ("x.gz", ""),
    ("csv", ""),
    ("", ""),
  ],
)
def test_the_extension_names_the_scheme(path, uri):
  assert uri_of(path) == uri
