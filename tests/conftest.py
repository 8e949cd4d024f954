"""The tests' machine: 8 virtual CPU devices, checked shapes, a printed seed."""

import importlib.metadata
import os
import pathlib
import sys

_SEED = "ENCDEC_TESTS_SEED"
_ROOT = pathlib.Path(__file__).parents[1]
_DEVICES = "--xla_force_host_platform_device_count=8"
_FLAGS = [_DEVICES]
# Compiling is most of the tests' time. The full counts run what users run.
# A process of pytest-xdist inherits the flags, and has no arguments.
if "--full" not in sys.argv and "PYTEST_XDIST_WORKER" not in os.environ:
  _FLAGS += [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
  ]
  # Later versions stop at a flag that they no longer have.
  if importlib.metadata.version("jaxlib").startswith("0.10."):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")

# JAX reads these once, at its import; commands started by tests inherit them.
os.environ["JAX_PLATFORMS"] = "cpu"
for _flag in _FLAGS:
  if _flag not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_flag}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_ROOT / ".cache/jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
# No test may reach the Hub.
os.environ["HF_HUB_OFFLINE"] = "1"

# ruff: noqa: E402
import functools
import gc
import random
import types
from collections.abc import Callable, Mapping
from typing import TypeVar, get_args

import flax.struct
import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

_TESTS_RUN = pytest.StashKey[int]()
_struct_dataclass = flax.struct.dataclass


def _unchecked_struct(cls=None, **kwargs):
  """flax.struct.dataclass whose fields are not checked when it is built.

  jax.tree.map rebuilds structs around leaves that are no arrays: specs, None.
  """
  if cls is None:
    return functools.partial(_unchecked_struct, **kwargs)
  cls = _struct_dataclass(cls, **kwargs)
  cls.__no_type_check__ = True
  return cls


flax.struct.dataclass = _unchecked_struct
_jaxtyped = jaxtyping.jaxtyped


def _names_arrays(hint) -> bool:
  if isinstance(hint, str | TypeVar):
    return True
  if isinstance(hint, list | tuple):
    return any(map(_names_arrays, hint))
  names = (getattr(x, "__module__", "") for x in (hint, type(hint)))
  return any(str(name).startswith("jaxtyping") for name in names) or (
    _names_arrays(get_args(hint))
  )


def _checked(*, typechecker):
  """jaxtyping.jaxtyped, but of signatures without arrays types alone.

  Binding shapes costs 20 times what checking types does, and where programs'
  texts are parsed or records are read it is most of the time.
  """
  check_shapes = _jaxtyped(typechecker=typechecker)

  def decorate(found):
    hints = getattr(found, "__annotations__", {}).values()
    if isinstance(found, types.FunctionType) and not any(
      map(_names_arrays, hints)
    ):
      return typechecker(found)
    return check_shapes(found)

  return decorate


jaxtyping.jaxtyped = _checked
# Before anything of ours is imported: the hook rewrites modules as they load.
jaxtyping.install_import_hook(["encdec", "train", "data"], "beartype.beartype")

hypothesis.settings.register_profile("reduced", deadline=None, max_examples=20)
hypothesis.settings.register_profile("full", deadline=None, max_examples=200)


def pytest_addoption(parser: pytest.Parser) -> None:
  parser.addoption(
    "--full",
    action="store_true",
    help="run random and long tests at their full counts",
  )
  parser.addoption(
    "--seed",
    type=int,
    default=None,
    help="seed of the random parts (default: drawn, and printed)",
  )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
  if config.option.seed is None:
    # The processes of pytest-xdist draw none of their own.
    drawn = int.from_bytes(os.urandom(4), "big") >> 1
    config.option.seed = int(os.environ.get(_SEED, drawn))
  if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ[_SEED] = str(config.option.seed)
  hypothesis.settings.load_profile("full" if config.option.full else "reduced")
  if config.option.hypothesis_seed is None:
    config.option.hypothesis_seed = str(config.option.seed)


def pytest_collection_modifyitems(
  config: pytest.Config, items: list[pytest.Item]
) -> None:
  """Of a test marked `sample(n)`, n cases by the seed; all at full counts.

  With `group="..."` it is n of all cases that are marked with that group.
  """
  if config.option.full:
    return
  cases: dict[str, list[pytest.Item]] = {}
  for item in items:
    if marker := item.get_closest_marker("sample"):
      name = marker.kwargs.get("group") or item.nodeid.partition("[")[0]
      cases.setdefault(name, []).append(item)
  left: set[pytest.Item] = set()
  for name, group in cases.items():
    marker = group[0].get_closest_marker("sample")
    assert marker is not None
    drawn = random.Random(f"{config.option.seed} {name}")
    more = max(0, len(group) - marker.args[0])
    left.update(drawn.sample(group, more))
  # A case that was asked for by its name is run.
  left -= {item for item in left if item.nodeid in config.args}
  config.hook.pytest_deselected(items=[i for i in items if i in left])
  items[:] = [item for item in items if item not in left]


def pytest_runtest_teardown(item: pytest.Item) -> None:
  """Drops compiled programs before Linux refuses the process more mappings.

  XLA maps some memory for each program that it compiles for a CPU, and crashes
  at Linux's limit, 65,530 mappings a process by default.
  """
  tests = item.session.stash.get(_TESTS_RUN, 0) + 1
  item.session.stash[_TESTS_RUN] = tests
  # Reading the file takes longer the more there are.
  if tests % 10 == 0 and _memory_mappings() > 30_000:
    jax.clear_caches()
    gc.collect()


def _memory_mappings() -> int:
  try:
    with open("/proc/self/maps", "rb") as file:
      return sum(1 for _ in file)
  except OSError:
    return 0


def pytest_report_header(config: pytest.Config) -> str:
  counts = "full" if config.option.full else "reduced"
  return (
    f"counts: {counts}; repeat the random parts by --seed={config.option.seed}"
  )


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
  """Whether the full counts were asked for."""
  return request.config.option.full


@pytest.fixture(scope="session")
def count(full: bool) -> Callable[[int, int], int]:
  """`count(reduced, full)`: the count that this run asks for."""
  return lambda reduced, full_count: full_count if full else reduced


@pytest.fixture(scope="session")
def one_device_env() -> Mapping[str, str]:
  """The environment of a process that shall see one device."""
  # Of spaces alone XLA would make a file's name.
  flags = os.environ["XLA_FLAGS"].replace(_DEVICES, "").strip()
  return os.environ | {"XLA_FLAGS": flags}


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
  """The seed of this run's random parts, as printed in the header."""
  return request.config.option.seed


@pytest.fixture(scope="session")
def random_params():
  """`random_params(shapes, std, seed=0)`: parameters as initialisers draw them.

  Matrices and tables are normal, norms scale by one and biases are zero, as
  numpy's arrays: of a tiny model, an initialiser takes longest to compile.
  """

  def params(shapes, std, seed=0):
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
      name = path[-1].key
      if name in ("scale", "bias"):
        return np.full(leaf.shape, name == "scale", leaf.dtype)
      return (std * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)

  return params
