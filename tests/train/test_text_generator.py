"""Text of a run: its settings reach the search."""

import logging
import re

import jax
import numpy as np
import pytest

from data.tokenizers.tokenizer import Tokenizer
from train import text_generator
from train.mesh import MeshConfig, make_mesh
from train.setup import trained

SOURCES = ("red blue 0", "green pink 7", "white white 11", "grey red 2")


@pytest.fixture
def generate(finished, one_device):
  """`generate(**settings)`: what the tiny model finds for some sources."""
  config, folder, _ = finished

  def run(rows=8, **settings):
    own = config.copy_and_resolve_references()
    own.generation.update(settings)
    own.eval.batch_size = rows
    this = trained.load(own, str(folder), 4)
    encoded = this.task.source_tokenizer.encode_batch(SOURCES)
    sources = [
      text_generator.GenerationRequest(key, np.asarray(ids, np.int32))
      for key, ids in enumerate(encoded)
    ]
    with jax.set_mesh(this.mesh):
      generator = text_generator.TextGenerator(this.task, own, this.mesh)
      params = generator.decoding_params(this.params)
      found = list(generator.generate(params, sources))
    return sorted(found, key=lambda row: row.key)

  return run


@pytest.mark.parametrize("devices", [4, 8])
def test_a_batch_has_rows_for_every_device(
  generate, monkeypatch, caplog, devices
):
  """Rows are rounded up, and more of them than there are sources."""
  alone = generate(rows=3)
  assert "have" not in caplog.text
  mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
  monkeypatch.setattr(trained, "make_mesh", lambda sizes: mesh)
  with caplog.at_level(logging.INFO):
    shared = generate(rows=devices + 1)
  said = f"have {2 * devices} rows, not the {devices + 1} of eval.batch_size"
  assert caplog.text.count(said) == 1
  assert [row.texts for row in shared] == [row.texts for row in alone]
  assert len({row.texts for row in alone}) > 1


def test_trigrams_of_words_are_blocked(generate, monkeypatch):
  # The tiny model writes no spaces: let each of its tokens be a word.
  monkeypatch.setattr(
    Tokenizer, "word_starts", lambda self: np.ones(self.vocab_size, bool)
  )
  beams = {"num_beams": 3, "max_length": 18}
  texts = [
    [row.texts[0] for row in generate(**beams, block_trigrams=blocked)]
    for blocked in (False, True)
  ]
  # Four times a character are twice three of them; what the last token of a
  # full text repeats is not seen any more.
  repeats = [[re.search(r"(.)\1{3}.", text) for text in both] for both in texts]
  assert any(repeats[0]) and not any(repeats[1])


def test_scores_are_over_the_penalty_that_is_named(generate):
  """All texts have as many tokens, so that the same ones are found."""
  beams = {"num_beams": 2, "length_penalty": 2.0, "min_length": 9}
  plain, gnmt = generate(**beams), generate(**beams, scoring="gnmt")
  assert [row.texts[0] for row in plain] == [row.texts[0] for row in gnmt]
  for a, b in zip(plain, gnmt, strict=True):
    expected = a.scores[0] * 8.0**2 / (13 / 6) ** 2
    assert b.scores[0] == pytest.approx(expected, rel=1e-5)
