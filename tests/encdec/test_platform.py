"""The platform is an argument: no traced code asks the running machine."""

import ast
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import platform
from encdec.generation.decode_params import unstack
from encdec.generation.generate import generate, start_prompt
from encdec.generation.search.options import SearchOptions
from encdec.types import KeyBlocks

ENCDEC = Path(platform.__file__).parent
# Names that answer for the running machine, and the files that may use them:
# the door, and the threads that read weight files.
ASKING = {"default_backend", "cpu_count", "process_cpu_count"}
MAY_ASK = {"platform.py", "hub/weights/lazy_params.py"}
SEARCHES = {
  "greedy": {},
  "beams": {"num_beams": 3},
  "groups": {"num_beams": 4, "num_groups": 2, "sample": False},
  "samples": {"sample": True, "num_returned": 2},
}


def asked(source: str) -> set[str]:
  """Names in `source` that answer for the running machine."""
  found = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Attribute):
      found.add(node.attr)
    elif isinstance(node, ast.Name):
      found.add(node.id)
    elif isinstance(node, ast.ImportFrom):
      found |= {alias.name for alias in node.names}
  return found & ASKING


def test_only_the_door_asks_what_machine_this_is():
  asking = {
    path.relative_to(ENCDEC).as_posix()
    for path in ENCDEC.rglob("*.py")
    if asked(path.read_text())
  }
  assert asking == MAY_ASK, (
    "read the platform from the module instead; see encdec/platform.py"
  )
  assert asked("from os import cpu_count as n") == {"cpu_count"}
  assert asked("jax.default_backend() == 'cpu'") == {"default_backend"}


def test_names_of_platforms(tiny_module):
  names = ("cpu", "tpu", "gpu", "cuda", "rocm")
  assert [platform.named(name) for name in names] == [
    "cpu", "tpu", "gpu", "gpu", "gpu",
  ]  # fmt: skip
  assert tiny_module().platform == platform.running() == "cpu"
  assert tiny_module().clone(platform="cuda").platform == "gpu"
  with pytest.raises(ValueError, match="'abacus' is not one of cpu, gpu, tpu"):
    tiny_module().clone(platform="abacus")


def test_the_platform_of_arrays():
  assert platform.of_arrays({"a": np.ones(2), "b": jnp.ones(2)}) == "cpu"
  assert platform.of_arrays({"a": np.ones(2)}) == platform.running()
  traced = []
  jax.jit(lambda x: traced.append(platform.of_arrays(x)))(jnp.ones(2))
  assert traced == [platform.running()]


@pytest.fixture(scope="module")
def modules(tiny_module):
  """The same module, for a CPU and for an accelerator."""
  cpu = tiny_module()
  return cpu, cpu.clone(platform="tpu")


def _source(rows: int):
  tokens = np.random.default_rng(0).integers(4, 120, (rows, 8), np.int32)
  positions = np.broadcast_to(np.arange(8, dtype=np.int32), tokens.shape)
  return tuple(map(jnp.asarray, (tokens, np.ones_like(tokens), positions)))


def _step(module, params):
  """The caches and logits of one step of decoding, in a loop of its own."""
  tokens, ones, positions = _source(4)
  params = unstack(jax.tree.map(jnp.asarray, params), module)
  apply = functools.partial(module.apply, {"params": params})
  states = apply(tokens, ones, positions, method="encode").states
  cross = apply(states, ones, method="cross_cache")
  logits, cache = apply(
    tokens[:, :3], ones[:, :3], positions[:, :3], cross,
    cache_length=8, method="prefill",
  )  # fmt: skip
  return logits, cache, cross, params


def test_an_accelerators_program_is_traced_on_a_cpu(modules, tiny_params):
  steps = [_step(module, tiny_params) for module in modules]
  for (_, cache, cross, params), blocks in zip(
    steps, (True, False), strict=True
  ):
    for keys, values in (*cache.layers, *cross.layers):
      assert isinstance(keys, KeyBlocks) == blocks
      assert blocks or keys.shape == values.shape
    layer = params["decoder"]["layers"][0]["mlp"]["up"]
    assert ("transposed" in layer) == blocks
  np.testing.assert_allclose(steps[0][0], steps[1][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("search", SEARCHES)
def test_platforms_find_the_same_texts(modules, tiny_params, search):
  """Of enough rows that a CPU ranks logits as its head leaves them."""
  found = [
    generate(
      module,
      unstack(tiny_params, module),
      *_source(16),
      options=SearchOptions(
        jnp.int32(10), jnp.int32(0), end_tokens=(2,), keep_logits=True,
        **SEARCHES[search],
      ),
      prompt=start_prompt(16, 1),
      cache_length=10,
      key=jax.random.key(0),
    )
    for module in modules
  ]  # fmt: skip
  cpu, tpu = found
  assert len(set(np.asarray(cpu.lengths).tolist())) > 1
  np.testing.assert_array_equal(cpu.tokens, tpu.tokens)
  steps = int(cpu.steps)
  np.testing.assert_allclose(
    cpu.step_logits[:, :steps], tpu.step_logits[:, :steps],
    rtol=1e-5, atol=1e-5,
  )  # fmt: skip


def test_a_programs_platform_shapes_it(modules, tiny_params):
  """The control: what is compiled for each platform differs."""
  texts = [
    jax.jit(lambda params, module=module: _step(module, params)[0])
    .lower(tiny_params)
    .as_text()
    for module in modules
  ]
  assert texts[0] != texts[1]
