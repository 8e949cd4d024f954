"""The layout: small folders, short files, and a test beside every module."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("configs", "data", "encdec", "launch", "train")
MOST_FILES, MOST_LINES, MOST_OF_A_FUNCTION = 16, 350, 60
# Folders of declarations, which have any number of files: tests go through all.
DECLARATIONS = {"configs", "encdec/archs"}
# Modules without a test file of their name, and what tests them instead.
TESTED_ELSEWHERE = {
  "encdec/explicit_axes.py": "by tests/encdec/hub/facade: a model on a mesh",
  "encdec/layers/compute_config.py": "a struct without code",
  "encdec/layers/kernels/facts.py": "structs and a shape: by test_xla.py",
  "encdec/types.py": "structs without code",
  "train/config.py": "a type",
}


def modules() -> list[Path]:
  files = [ROOT / "main.py"]
  for package in PACKAGES:
    files += (ROOT / package).rglob("*.py")
  return sorted(path.relative_to(ROOT) for path in files)


def named_after(module: Path) -> list[Path]:
  """`tests/<package>/test_<module>[_<property>].py`."""
  folder = ROOT / "tests" / module.parent
  return [
    *folder.glob(f"test_{module.stem}.py"),
    *folder.glob(f"test_{module.stem}_*.py"),
  ]


def longest_function(source: str) -> int:
  """Lines of the longest function of a module, docstrings not counted."""
  longest = 0
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      length = (node.end_lineno or node.lineno) - node.lineno + 1
      if ast.get_docstring(node):
        text = node.body[0]
        length -= (text.end_lineno or text.lineno) - text.lineno + 1
      longest = max(longest, length)
  return longest


def test_folders_are_small():
  names = [m for m in modules() if m.name != "__init__.py"]
  counts = Counter(m.parent.as_posix() for m in names)
  assert counts["encdec/archs"] > 10
  crowded = {
    folder: count
    for folder, count in counts.items()
    if count > MOST_FILES and folder not in DECLARATIONS
  }
  assert not crowded


def test_files_and_functions_are_short():
  assert len(modules()) > 100
  for module in modules():
    source = (ROOT / module).read_text("utf-8")
    assert len(source.splitlines()) <= MOST_LINES, module
    assert longest_function(source) <= MOST_OF_A_FUNCTION, module


def test_a_docstring_does_not_make_a_function_long():
  assert longest_function("def f():\n  'a'\n  return 1\n") == 2
  assert longest_function("class A:\n  def f(self):\n    return 1\n") == 2


def test_each_module_has_its_tests():
  missing = {
    module.as_posix()
    for module in modules()
    if module.name != "__init__.py"
    and module.parent.as_posix() not in DECLARATIONS
    and not named_after(module)
  }
  assert missing == set(TESTED_ELSEWHERE)


def test_each_test_file_names_its_module():
  wrong = []
  for path in sorted((ROOT / "tests").rglob("test_*.py")):
    package = path.relative_to(ROOT / "tests").parent
    mirrored = package.parts and package.parts[0] in PACKAGES
    if mirrored and package.as_posix() not in DECLARATIONS:
      names = [m.stem for m in modules() if m.parent == package]
      words = path.stem.removeprefix("test_")
      if not any(words == n or words.startswith(f"{n}_") for n in names):
        wrong.append(path.relative_to(ROOT).as_posix())
  assert not wrong
