"""Every mesh finds one device's texts, and no cache crosses devices."""

import math
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec import sharding
from encdec.generation import programs
from encdec.generation.decode_params import unstack
from encdec.generation.generate import generate, start_prompt
from encdec.generation.search.context import SearchContext
from encdec.generation.search.options import ScoreRules, SearchOptions, Warps
from train.mesh import MeshConfig, batch_sharding, make_mesh

ROWS, SOURCE, SLOTS = 40, 8, 11
# (data, fsdp, tensor).
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2)]
SEARCHES = {
  "greedy": {},
  "beams": {
    "num_beams": 3,
    "num_returned": 2,
    "rules": ScoreRules(
      no_repeat_ngram_size=2, repetition_penalty=jnp.float32(1.2)
    ),
  },
  "samples": {"sample": True, "num_returned": 2, "warps": Warps(top_k=20)},
  "groups": {
    "num_beams": 4,
    "num_groups": 2,
    "diversity_penalty": jnp.float32(0.5),
  },
}


def _source():
  rng = np.random.default_rng(0)
  tokens = rng.integers(4, 120, (ROWS, SOURCE)).astype(np.int32)
  index = np.arange(SOURCE, dtype=np.int32)
  lengths = rng.integers(3, SOURCE + 1, (ROWS, 1))
  segments = (index[None] < lengths).astype(np.int32)
  return tokens, segments, np.broadcast_to(index, tokens.shape)


def _options(**options) -> SearchOptions:
  return SearchOptions(
    jnp.int32(SLOTS + 1), jnp.int32(0), end_tokens=(2,), **options
  )


def _placed(module, params, mesh):
  rules = module.rules
  specs = sharding.param_specs(params, rules, mesh)
  params = jax.device_put(params, specs)
  prepare = jax.jit(lambda tree: unstack(tree, module))
  source = jax.device_put(_source(), batch_sharding(mesh, rules))
  return module, prepare(params), source


def _run(module, params, source, options):
  return generate(
    module,
    params,
    *source,
    options=options,
    prompt=start_prompt(ROWS, 1),
    cache_length=SLOTS,
    key=jax.random.key(3),
  )


@pytest.fixture(scope="module")
def expected(tiny_module, tiny_params, count, seed):
  """By search, of which reduced counts draw one: one device's texts."""
  drawn = random.Random(seed).sample(list(SEARCHES), count(1, len(SEARCHES)))
  module = tiny_module()
  source = tuple(map(jnp.asarray, _source()))
  tree = unstack(jax.tree.map(jnp.asarray, tiny_params), module)
  return {
    name: _run(module, tree, source, _options(**SEARCHES[name]))
    for name in drawn
  }


@pytest.mark.sample(1)
@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_a_mesh_finds_the_same_texts(tiny_module, tiny_params, expected, shape):
  mesh = make_mesh(MeshConfig(1, *shape))
  with jax.set_mesh(mesh):
    placed = _placed(tiny_module(sharding.DEFAULT_RULES), tiny_params, mesh)
    for name, one in expected.items():
      found = _run(*placed, _options(**SEARCHES[name]))
      np.testing.assert_array_equal(found.tokens, one.tokens, err_msg=name)
      lengths = np.asarray(found.lengths)
      assert len(set(lengths.tolist())) > 2, "texts should end here and there"
      if found.scores is not None:
        np.testing.assert_allclose(found.scores, one.scores, atol=1e-4)


def test_the_loop_gathers_no_cache_and_no_tree(tiny_module, tiny_params):
  mesh = make_mesh(MeshConfig(1, 2, 2, 2))
  with jax.set_mesh(mesh):
    module = tiny_module(sharding.DEFAULT_RULES)
    module, tree, source = _placed(module, tiny_params, mesh)
    options = _options(num_beams=3)
    search = SearchContext(options, "cpu", vocab_size=120, rules=module.rules)
    prompt = start_prompt(ROWS, 1)
    cross = programs.encode(module, tree, *source, None)
    loop_state = programs.start(
      module, SLOTS, tree, cross, prompt, search, None
    )
    enough = jnp.int32(ROWS)
    text = (
      programs.run.lower(
        module, tree, cross, prompt, search, loop_state, enough
      )
      .compile()
      .as_text()
    )
  shapes = _collectives(text)
  assert shapes, "weights over fsdp are gathered, a matrix at a time"
  weights = max(leaf.size for leaf in jax.tree.leaves(tree))
  keys, values = loop_state.cache.layers[0]
  slots = values.shape[2]
  assert slots == SLOTS * 3 == keys.blocks.shape[-1]
  for shape in shapes:
    assert math.prod(shape) <= weights, shape
    assert slots not in shape and ROWS not in shape, shape


def test_refilling_moves_nothing_between_devices(tiny_module, tiny_params):
  mesh = make_mesh(MeshConfig(1, 2, 2, 2))
  with jax.set_mesh(mesh):
    module = tiny_module(sharding.DEFAULT_RULES)
    module, tree, source = _placed(module, tiny_params, mesh)
    search = SearchContext(
      _options(num_beams=3), "cpu", vocab_size=120, rules=module.rules
    )
    prompt = start_prompt(ROWS, 1)
    cross = programs.encode(module, tree, *source, None)
    loop_state = programs.start(
      module, SLOTS, tree, cross, prompt, search, None
    )
    taken = jnp.zeros(ROWS, jnp.int32)
    text = (
      programs.refill.lower(
        module, prompt, search, loop_state, cross, cross, taken
      )
      .compile()
      .as_text()
    )
  assert not _collectives(text)


def _collectives(text: str) -> list[tuple[int, ...]]:
  """Shapes of what a compiled program sends between devices whole."""
  found = re.findall(
    r"= \(?\w+\[([\d,]*)\][^=]*? (?:all-gather|all-to-all|collective-permute)",
    text,
  )
  return [tuple(int(n) for n in shape.split(",") if n) for shape in found]
