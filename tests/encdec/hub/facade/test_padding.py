"""Shapes within a bucket share one compiled program."""

import jax
import numpy as np
import pytest

from encdec.generation import programs


def test_generation_compiles_once_a_bucket(tiny, batch):
  tiny.generate(batch[0], max_length=5, min_length=3)
  before = programs.run._cache_size()
  for length, source in ((9, batch[0]), (33, batch[0][:, :3])):
    tiny.generate(source, max_length=length, min_length=2)
  assert programs.run._cache_size() == before
  tiny.generate(batch[0], max_length=34, min_length=2)
  assert programs.run._cache_size() == before + 1


@pytest.mark.sample(1)
@pytest.mark.parametrize("beams", [1, 2])
def test_a_new_shape_in_a_bucket_compiles_nothing(tiny, caplog, beams):
  """What the host gives is padded and cut there, prompts included."""
  ids = np.random.default_rng(0).integers(5, 30, (8, 9))
  prompt = np.full((8, 1), 3)

  def compiled(rows, length, tokens, **more):
    source = ids[:rows, :length]
    caplog.clear()
    with jax.log_compiles():
      found = tiny.generate(
        source.tolist(),
        attention_mask=np.ones_like(source),
        num_beams=beams,
        max_length=tokens,
        min_length=tokens,
        **more,
      )
    assert isinstance(found.sequences, jax.Array)
    assert found.sequences.shape == (rows, tokens)
    return [r.message for r in caplog.records if "Finished XLA" in r.message]

  compiled(8, 9, 9)
  assert not compiled(7, 8, 9)
  assert not compiled(5, 4, 6)
  assert not compiled(6, 8, 7, decoder_input_ids=prompt[:6])
  # The control: another bucket.
  assert compiled(8, 9, 40)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
  "options",
  [
    {},
    {"num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "num_return_sequences": 2, "top_k": 0},
  ],
  ids=["greedy", "beams", "samples"],
)
def test_rows_have_buckets(tiny, options):
  """Seven sources are searched by the program of eight, and are seven."""
  ids = jax.random.randint(jax.random.key(3), (8, 5), 5, 30)
  options = options | {
    "max_length": 6,
    "output_scores": True,
    "output_logits": True,
    "output_attentions": True,
  }
  keys = jax.random.split(jax.random.key(0), 8)
  sampled = "do_sample" in options
  whole = tiny.generate(ids, prng_key=keys if sampled else None, **options)
  before = programs.run._cache_size()
  part = tiny.generate(
    ids[:7], prng_key=keys[:7] if sampled else None, **options
  )
  assert programs.run._cache_size() == before
  texts, steps = 7 * options.get("num_return_sequences", 1), len(part.scores)
  beams = part.scores[0].shape[0]
  width = part.sequences.shape[1]
  np.testing.assert_array_equal(part.sequences, whole.sequences[:texts, :width])
  assert part.cross_attentions[0].shape[0] == texts
  for name in ("scores", "logits"):
    for mine, all_of in zip(
      getattr(part, name), getattr(whole, name)[:steps], strict=True
    ):
      np.testing.assert_allclose(mine, all_of[:beams], atol=1e-5)
  if sampled:
    with pytest.raises(ValueError, match="keys for 7 rows"):
      tiny.generate(ids[:7], prng_key=keys, **options)
