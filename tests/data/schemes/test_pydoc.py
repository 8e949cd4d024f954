"""Pairs of the standard library: no docstring left, no module in two splits."""

import ast
import importlib.util
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from data.schemes import pydoc


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, str]]]:
  return {s: pydoc.records(s) for s in pydoc.SPLITS}


def test_sizes(splits):
  sizes = {split: len(records) for split, records in splits.items()}
  # A tenth of them are tkinter's, which some distributions pack apart.
  least = 6_500 if importlib.util.find_spec("tkinter") else 6_000
  assert least < sizes["all"] < 9_000, sizes
  assert sizes["train"] > 0.75 * sizes["all"], sizes
  assert min(sizes["valid"], sizes["test"]) > 0.03 * sizes["all"], sizes
  # 200 held-out pairs are what the quickstart scores.
  assert sizes["test"] >= 200, sizes


def test_splits_share_no_module_and_lose_no_pair(splits):
  parts = [splits[s] for s in ("train", "valid", "test")]
  modules = [{r["module"] for r in part} for part in parts]
  assert not modules[0] & modules[1]
  assert not modules[0] & modules[2]
  assert not modules[1] & modules[2]
  names = sorted(r["source"] for part in parts for r in part)
  assert names == sorted(r["source"] for r in splits["all"])


def test_pairs_are_distinct_long_enough_and_of_the_library(splits):
  sources_seen = [r["source"] for r in splits["all"]]
  assert len(set(sources_seen)) == len(sources_seen)
  assert min(len(r["target"]) for r in splits["all"]) >= 12
  assert not any("\n" in r["target"] for r in splits["all"])
  for record in splits["all"]:
    parts = set(record["module"].split("."))
    assert not parts & {"test", "tests", "idlelib", "turtledemo"}
    assert "site-packages" not in parts


def test_a_slice_mixes_modules(splits):
  modules = {r["module"] for r in splits["train"][:200]}
  assert len(modules) > 60


def test_docstring_is_gone_and_code_remains(splits):
  for record in splits["test"]:
    head = record["source"].lstrip()
    assert head.startswith(("def ", "class ", "async def ", "@")), head[:80]
    try:
      node = ast.parse(record["source"]).body[0]
    except SyntaxError:
      # Nothing but a docstring was in its body.
      assert record["source"].rstrip().endswith(":"), record["source"]
      continue
    assert node.name == record["name"].rpartition(".")[2]
    docstring = ast.get_docstring(node) or ""
    assert pydoc.first_sentence(docstring) != record["target"]


def test_another_process_sees_the_same_and_imports_nothing():
  folder = pathlib.Path(ast.__file__).with_name("email")
  code = (
    "import pathlib, sys; from data.schemes import pydoc; "
    "before = set(sys.modules); "
    f"pairs = pydoc.pairs_of(pathlib.Path({str(folder)!r})); "
    "print(set(sys.modules) - before, [p['name'] for p in pairs])"
  )
  environment = os.environ | {"PYTHONHASHSEED": "7"}
  result = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=True,
    env=environment,
  )
  names = [p["name"] for p in pydoc.pairs_of(folder)]
  assert result.stdout == f"set() {names}\n" and len(names) > 50


def _pairs(tmp_path, text, name="module.py"):
  (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
  (tmp_path / name).write_bytes(textwrap.dedent(text).encode())
  return {r["name"]: r for r in pydoc.pairs_of(tmp_path)}


def test_code_as_cut_out(tmp_path):
  pairs = _pairs(
    tmp_path,
    '''
    if True:
      @decorated  # é é é
      class Thing:
        """The docstring of é things.
        More of it, still the first paragraph.

        More.
        """
        field = 1

        def method(self):
          "Does a thing to things"; return self

    async def wait(): """Waits for ever and a day."""

    def short():
      """Too short"""

    def none():
      return 1
    ''',
  )
  assert set(pairs) == {"module.Thing", "module.method", "module.wait"}
  thing = pairs["module.Thing"]
  assert thing["target"] == "The docstring of é things."
  assert thing["source"].startswith("@decorated  # é é é\nclass Thing:\n")
  assert "  field = 1\n" in thing["source"]
  assert "docstring of" not in thing["source"]
  method = pairs["module.method"]
  assert method["source"] == "def method(self):\n  return self"
  assert pairs["module.wait"]["source"] == "async def wait():"


def test_excluded_folders_bad_files_and_doubles(tmp_path):
  text = "def f():\n  'Returns the number one.'\n  return 1\n"
  for name in ("test/a.py", "x/tests/b.py", "idlelib/c.py", "turtledemo/d.py"):
    assert not _pairs(tmp_path, text, name)
  (tmp_path / "bad.py").write_bytes(b"def f(:\n")
  (tmp_path / "worse.py").write_bytes(b"'\xff'\n")
  assert not _pairs(tmp_path, "x = 1\n", "empty.py")
  _pairs(tmp_path, text, "two.py")
  assert set(_pairs(tmp_path, text, "one.py")) == {"one.f"}


@pytest.mark.parametrize(
  ("docstring", "want"),
  [
    ("One. Two.", "One."),
    ("One\n  line. And more", "One line."),
    ("No end\n\nNext paragraph.", "No end"),
    ("Uses e.g. Foo and i.e. Bar. Then", "Uses e.g. Foo and i.e. Bar."),
    ("Version 3.5 is it! Yes", "Version 3.5 is it!"),
    ("See foo. bar is lower. Baz", "See foo. bar is lower."),
    ("", ""),
  ],
)
def test_first_sentence(docstring, want):
  assert pydoc.first_sentence(docstring) == want
