"""The scheme pydoc: code of the standard library -> what it says it does.

A pair is a function or class without its docstring, and the docstring's first
sentence. The files of the Python that runs this are parsed, never imported.
"""

import ast
import functools
import hashlib
import inspect
import os
import pathlib
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from typing import Any

_EXCLUDED = {
  "__pycache__",
  "dist-packages",
  "idlelib",
  "site-packages",
  "test",
  "tests",
  "turtledemo",
}
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_MIN_TARGET = 12
# Shares of the modules, in hundredths; the rest is train. With this salt the
# pairs, of which a module has 1 to 500, are shared out about alike.
_VALID, _TEST, _SALT = 6, 8, "39:"
SPLITS = ("train", "valid", "test", "all")
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)[.!?](?=\s+[^a-z\s])")


def records(split: str) -> list[dict[str, str]]:
  """The pairs of a split, with `name`, in an order that mixes modules."""
  if split not in SPLITS:
    raise ValueError(
      f"pydoc@{split}: there is no such split; choose one of "
      f"{', '.join(SPLITS)}"
    )
  if split == "all":
    return list(_library())
  return [r for r in _library() if split_of(r["module"]) == split]


def split_of(module: str) -> str:
  """The split that all pairs of a module belong to."""
  share = int(_hash(_SALT + module), 16) % 100
  if share < _VALID:
    return "valid"
  return "test" if share < _VALID + _TEST else "train"


@functools.cache
def _library() -> tuple[dict[str, str], ...]:
  root = pathlib.Path(sysconfig.get_path("stdlib"))
  return pairs_of(root)


def pairs_of(root: pathlib.Path) -> tuple[dict[str, str], ...]:
  """The pairs of all modules under `root`, no code twice."""
  pairs: dict[str, dict[str, str]] = {}
  for path in sorted(_files(root)):
    parts = path.relative_to(root).with_suffix("").parts
    for pair in _module(path, ".".join(parts)):
      # The first of equal sources stays, whatever module it is in.
      pairs.setdefault(pair["source"], pair)
  return tuple(sorted(pairs.values(), key=lambda p: _hash(p["source"])))


def _files(root: pathlib.Path) -> Iterator[pathlib.Path]:
  for folder, folders, names in os.walk(root):
    folders[:] = set(folders) - _EXCLUDED
    for name in names:
      if name.endswith(".py"):
        yield pathlib.Path(folder, name)


def _definitions(tree: ast.AST) -> Iterator[_Definition]:
  """Functions and classes in a tree, in the order of the file."""
  pending = [tree]
  while pending:
    node = pending.pop()
    if isinstance(node, _Definition):
      yield node
    # Only statements hold definitions; expressions are most of a tree.
    for field in ("cases", "finalbody", "orelse", "handlers", "body"):
      children = getattr(node, field, ())
      if isinstance(children, list):
        pending.extend(reversed(children))


def _module(path: pathlib.Path, module: str) -> Iterator[dict[str, str]]:
  try:
    text = path.read_text(encoding="utf-8")
    with warnings.catch_warnings():
      # Old escapes in the library are no concern of ours.
      warnings.simplefilter("ignore")
      tree = ast.parse(text)
  except (SyntaxError, UnicodeDecodeError, ValueError):
    # Templates and samples of bad code: not modules of the library.
    return
  lines = text.encode().splitlines(keepends=True)
  for node in _definitions(tree):
    target = first_sentence(ast.get_docstring(node) or "")
    if len(target) >= _MIN_TARGET:
      yield {
        "source": _without_docstring(node, lines),
        "target": target,
        "module": module,
        "name": f"{module}.{node.name}",
      }


def first_sentence(docstring: str) -> str:
  """The first sentence of the first paragraph, on one line."""
  paragraph = inspect.cleandoc(docstring).split("\n\n")[0]
  text = " ".join(paragraph.split())
  end = _SENTENCE_END.search(text)
  return text[: end.end()] if end else text


def _without_docstring(
  node: _Definition,
  lines: list[bytes],
) -> str:
  first = min([node, *node.decorator_list], key=lambda n: n.lineno).lineno
  doc: Any = node.body[0]
  # Columns count bytes of UTF-8.
  head = b"".join(lines[first - 1 : doc.lineno - 1])
  head += lines[doc.lineno - 1][: doc.col_offset]
  tail = lines[doc.end_lineno - 1][doc.end_col_offset :].lstrip(b" ;\t")
  if not tail.strip():
    # Nothing shares the docstring's lines.
    head, tail = head.rstrip(b" \t"), b""
  tail += b"".join(lines[doc.end_lineno : node.end_lineno])
  text = (head + tail).decode().replace("\r\n", "\n")
  return textwrap.dedent(text).rstrip()


def _hash(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()
