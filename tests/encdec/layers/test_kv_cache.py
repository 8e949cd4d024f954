"""Keys and values are read as they were written, whatever the layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.layers import kv_cache
from encdec.layers.attention import attention
from encdec.layers.kernels.facts import key_shape
from encdec.layers.kernels.xla import XlaAttention
from encdec.types import AttentionMask, KeyBlocks

BATCH, GROUPS, WIDTH = 2, 3, 8


def rows(count: int, seed: int = 0, groups: int = GROUPS):
  shape = (BATCH, groups, count, WIDTH)
  keys, values = jax.random.split(jax.random.key(seed))
  return jax.random.normal(keys, shape), jax.random.normal(values, shape)


def plain(pair):
  return [np.asarray(part) for part in kv_cache.from_cache(pair)]


@pytest.mark.parametrize("beams_per_slot", [1, 3, 4, 100])
@pytest.mark.parametrize("slots", [1, 12, 64, 65, 200])
def test_a_cache_holds_what_it_was_given(slots, beams_per_slot):
  given = rows(slots * beams_per_slot)
  held = kv_cache.as_cache(*given, "cpu", beams_per_slot)
  assert isinstance(held[0], KeyBlocks), "a CPU's cache has keys in blocks"
  assert held[0].blocks.shape[-1] % beams_per_slot == 0
  expected = (BATCH, slots * beams_per_slot, GROUPS, WIDTH)
  assert key_shape(held[0]) == expected
  for found, expected in zip(plain(held), given, strict=True):
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("queries", [1, 4, 40])
@pytest.mark.parametrize("count", [12, 64, 200])
def test_attention_reads_cached_keys(count, queries):
  """Two heads a group; a mask, and attention of every key to every query."""
  keys, values = rows(count)
  q = jax.random.normal(jax.random.key(1), (BATCH, queries, 2 * GROUPS, WIDTH))
  mask = AttentionMask(
    dense=jax.random.bernoulli(
      jax.random.key(2), 0.7, (BATCH, 1, queries, count)
    )
  )

  def attend(held):
    return attention(
      q,
      *kv_cache.read(held),
      mask,
      scale=0.3,
      platform="cpu",
      return_weights=True,
    )

  found = attend(kv_cache.as_cache(keys, values, "cpu"))
  expected = attend((keys, values))
  for ours, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("separate_beams", [False, True])
@pytest.mark.parametrize("slots", [5, 64, 100])
@pytest.mark.parametrize("beams", [1, 3, 4])
def test_steps_are_written_in_their_slots(slots, beams, separate_beams):
  """Every slot of a ring, beams side by side or each in rows of its own."""
  groups, beams_per_slot = (
    (GROUPS * beams, 1) if separate_beams else (GROUPS, beams)
  )
  zeros = jnp.zeros((BATCH, groups, slots * beams_per_slot, WIDTH))
  held = kv_cache.as_cache(zeros, zeros, "cpu", beams_per_slot)
  expected = [np.zeros(zeros.shape), np.zeros(zeros.shape)]
  write = jax.jit(kv_cache.write, static_argnames="beams_per_slot")
  for slot in [*range(2, slots), 0, 1, 2]:
    fresh = [part.swapaxes(1, 2) for part in rows(beams, seed=slot + slots)]
    held = write(
      held, *fresh, jnp.asarray(slot, jnp.int32), beams_per_slot=beams_per_slot
    )
    for part, new in zip(expected, fresh, strict=True):
      at = slice(slot * beams_per_slot, (slot + 1) * beams_per_slot)
      part[:, :, at] = new.swapaxes(1, 2).reshape(part[:, :, at].shape)
  for found, part in zip(plain(held), expected, strict=True):
    np.testing.assert_array_equal(found, np.float32(part))


@pytest.mark.parametrize(("slot", "count"), [(0, 7), (60, 9), (3, 90)])
def test_a_prompt_is_written_over_blocks(slot, count):
  before = rows(128, seed=1)
  fresh = [part.swapaxes(1, 2) for part in rows(count, seed=2)]
  held = kv_cache.write(
    kv_cache.as_cache(*before, "cpu"),
    *fresh,
    jnp.asarray(slot, jnp.int32),
    beams_per_slot=1,
  )
  for found, old, new in zip(plain(held), before, fresh, strict=True):
    expected = np.array(old)
    expected[:, :, slot : slot + count] = new.swapaxes(1, 2)
    np.testing.assert_array_equal(found, expected)


def test_a_cache_grows_behind_what_it_holds():
  before = rows(64)
  held = kv_cache.grow_to(kv_cache.as_cache(*before, "cpu"), 130)
  for found, old in zip(plain(held), before, strict=True):
    assert found.shape[2] == 130
    np.testing.assert_array_equal(found[:, :, :64], old)
    assert not found[:, :, 64:].any()


@pytest.mark.parametrize("separate_beams", [False, True])
def test_a_prompt_is_written_to_the_first_slots(separate_beams):
  beams, slots, length = 3, 70, 4
  prompt = rows(length)
  groups = GROUPS * beams if separate_beams else GROUPS
  zeros = jnp.zeros(
    (BATCH, groups, slots if separate_beams else slots * beams, WIDTH)
  )
  held = kv_cache.write_prompt(
    kv_cache.as_cache(*prompt, "cpu"),
    kv_cache.as_cache(zeros, zeros, "cpu", 1 if separate_beams else beams),
    beams,
    separate_beams,
  )
  for found, part in zip(plain(held), prompt, strict=True):
    if separate_beams:
      by_beam = found.reshape(BATCH, GROUPS, beams, slots, WIDTH)
      for beam in range(beams):
        np.testing.assert_array_equal(by_beam[:, :, beam, :length], part)
    else:
      by_beam = found.reshape(BATCH, GROUPS, slots, beams, WIDTH)
      np.testing.assert_array_equal(by_beam[:, :, :length, 0], part)
    assert np.count_nonzero(found) == part.size * (
      beams if separate_beams else 1
    )


@pytest.mark.parametrize("slots", [32, 64, 256])
def test_a_step_copies_no_cache(slots):
  """In a loop: not even where there is one block, or one query a row."""

  def step(carry):
    index, state, held = carry
    fresh = jnp.tanh(state)
    held = kv_cache.write(held, fresh, fresh, index, beams_per_slot=1)
    out, _ = XlaAttention()(
      state,
      *kv_cache.read(held),
      AttentionMask(),
      scale=1.0,
      platform="cpu",
      rules=None,
      bias=None,
      softcap=None,
      sinks=None,
      dropout=None,
      return_weights=False,
    )
    return index + 1, out, held

  def search(state, held):
    start = jnp.zeros((), jnp.int32), state, held
    return jax.lax.while_loop(lambda carry: carry[0] < slots, step, start)

  zeros = jnp.zeros((BATCH, GROUPS, slots, WIDTH))
  state = jnp.ones((BATCH, 1, GROUPS, WIDTH))
  compiled = jax.jit(search, donate_argnums=1).lower(
    state, kv_cache.as_cache(zeros, zeros, "cpu")
  )
  text = compiled.compile().as_text()
  size = f"{BATCH},{GROUPS}"
  moved = [
    line
    for line in text.splitlines()
    if " copy(" in line and f"f32[{size}" in line and f",{WIDTH},64]" in line
  ]
  assert not moved, moved
