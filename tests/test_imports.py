"""Arrows between the packages point one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"configs", "data", "encdec", "launch", "main", "train"}
# Who may import whom; a package may always import itself.
ARROWS = {
  "configs": set(),
  "data": set(),
  "encdec": set(),
  "encdec.hub": {"encdec"},
  "train": {"encdec", "encdec.hub", "data"},
  "launch": {"configs"},
  "launch.aot": {"configs", "launch", "train"},
  "main": {"train", "data"},
}
# Rooms of a package, and what of the same package they may not know.
ROOMS = {
  "encdec.generation.search": {
    "encdec.archs",
    "encdec.blocks",
    "encdec.generation.decode_params",
    "encdec.generation.generate",
    "encdec.generation.programs",
    "encdec.generation.scheduler",
    "encdec.generation.streaming",
    "encdec.model",
    "encdec.stacks",
  },
  "encdec.layers": {"encdec.blocks", "encdec.model", "encdec.stacks"},
  "encdec.hub.files": {"encdec.hub.facade", "encdec.hub.weights"},
  "encdec.hub.weights": {"encdec.hub.facade"},
  "data.schemes": {"data.sources", "data.store", "data.tokenizers"},
  "data.tokenizers": {"data.schemes", "data.sources", "data.store"},
  "train.evaluators": {"train.loop", "train.modes", "train.start"},
  "train.setup": {
    "train.evaluators",
    "train.loop",
    "train.modes",
    "train.start",
    "train.text_generator",
  },
  "train.workdir": {"train.loop", "train.modes", "train.setup", "train.start"},
}
# The public face: names of the hub, and transformers' own config class.
FACE = "encdec.__init__"
# Who of ours may import these.
FENCED = {
  "transformers": {"encdec.hub", FACE, "train", "data"},
  "huggingface_hub": {"encdec.hub", "train", "data"},
  "orbax": {"train.checkpoint"},
  "torch": set(),
  "tensorflow": set(),
}


def module_name(path: Path, root: Path) -> str:
  return ".".join(path.relative_to(root).with_suffix("").parts)


def imports(tree: ast.AST, module: str) -> Iterator[str]:
  """Dotted names that a module imports anywhere, in functions too."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        above = module.split(".")[: -node.level]
        base = ".".join([*above, base] if base else above)
      yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
  return name == package or name.startswith(f"{package}.")


def house(name: str, packages) -> str | None:
  """The innermost of the packages that a dotted name lies in."""
  found = [package for package in packages if within(name, package)]
  return max(found, key=len, default=None)


def violations(sources: dict[str, str]) -> list[str]:
  """Edges that no arrow allows, as "importer -> imported"."""
  wrong = []
  for module, source in sources.items():
    home = house(module, ARROWS)
    assert home, f"{module} belongs to no package of ARROWS"
    for name in imports(ast.parse(source), module):
      if name.split(".")[0] in OURS:
        target = house(name, ARROWS)
        face = module == FACE and target == "encdec.hub"
        if target != home and target not in ARROWS[home] and not face:
          wrong.append(f"{module} -> {name}")
        room = house(module, ROOMS)
        if room and house(name, ROOMS[room]):
          wrong.append(f"{module} -> {name}")
      fence = house(name, FENCED)
      if fence and not any(within(module, ok) for ok in FENCED[fence]):
        wrong.append(f"{module} -> {name}")
  return wrong


def product() -> dict[str, str]:
  files = [ROOT / "main.py"]
  for package in sorted(OURS - {"main"}):
    files += sorted((ROOT / package).rglob("*.py"))
  return {module_name(f, ROOT): f.read_text("utf-8") for f in files}


def test_imports_follow_the_arrows():
  sources = product()
  assert len(sources) > 30
  wrong = violations(sources)
  assert not wrong


def cycles(sources: dict[str, str]) -> list[str]:
  """Modules that import themselves through others, each with the next one."""
  modules = {module.removesuffix(".__init__") for module in sources}
  edges: dict[str, set[str]] = {}
  for module, source in sources.items():
    module, named = module.removesuffix(".__init__"), set()
    for name in imports(ast.parse(source), module):
      while name and name not in modules:
        name = name.rpartition(".")[0]
      named.add(name)
    edges[module] = named - {module, ""}
  # What imports nothing that is left can be in no circle.
  while leaves := [m for m, named in edges.items() if not named & edges.keys()]:
    for leaf in leaves:
      del edges[leaf]
  return [f"{m} -> {min(named & edges.keys())}" for m, named in edges.items()]


def test_no_module_imports_itself_through_others():
  assert not cycles(product())
  a, b = "from data import b", "def f():\n  from data import a"
  assert cycles({"data.a": a, "data.b": b}) == [
    "data.a -> data.b",
    "data.b -> data.a",
  ]
  assert not cycles({"data.a": a, "data.b": "import os"})


def test_packages_of_the_checkout_are_no_namespaces():
  # An installed package called `data` would win over a namespace package.
  for package in OURS - {"main"}:
    assert (ROOT / package / "__init__.py").exists(), package
  assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize(
  "module, source",
  [
    ("data.plan", "import train.loop"),
    ("data.plan", "def f():\n  from encdec import masks"),
    ("encdec.model", "from data import plan"),
    ("encdec.model", "from encdec.hub import weights"),
    ("encdec.model", "from encdec import hub"),
    ("encdec.layers.mlp", "from ..hub import weights"),
    ("encdec.archs.bert", "import transformers"),
    ("encdec.hub.facade.model", "import train"),
    ("configs.dates", "from encdec import model"),
    ("train.step", "from configs import common"),
    ("train.step", "import orbax.checkpoint as ocp"),
    ("launch.local", "from train.processes import join"),
    ("main", "import encdec.model"),
    ("train.loop", "import torch"),
    ("encdec.generation.search.beam", "from encdec import model"),
    ("encdec.hub.files.h5", "from encdec.hub.weights import tensor_map"),
    ("data.schemes.csv", "from data.store import shards"),
  ],
)
def test_a_wrong_edge_is_caught(module, source):
  assert violations({module: source})


@pytest.mark.parametrize(
  "module, source",
  [
    (
      "encdec.hub.facade.model",
      "from encdec import model\nimport transformers",
    ),
    (
      "encdec.__init__",
      "from encdec.hub.facade.model import FlaxEncoderDecoderModel",
    ),
    ("encdec.model", "from . import masks"),
    ("train.checkpoint", "import orbax.checkpoint as ocp"),
    ("launch.sweep", "from launch import local\nimport configs.common"),
    ("launch.aot", "from train import step"),
    ("main", "from train.processes import join"),
  ],
)
def test_a_right_edge_passes(module, source):
  assert not violations({module: source})
