"""Options come from the call and from files, and idle ones are warned of."""

import numpy as np
import pytest


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"temperature": 0.7}, r"temperature=0\.7 does nothing without do_sample"),
    ({"num_beams": 2, "top_k": 5}, "top_k=5 does nothing without do_sample"),
    ({"length_penalty": 0.0}, "does nothing without num_beams of at least 2"),
    ({"scoring": "gnmt"}, "scoring='gnmt' does nothing without num_beams"),
  ],
)
def test_options_that_their_mode_does_not_use_are_warned_of(
  tiny, batch, options, message
):
  with pytest.warns(UserWarning, match=message):
    tiny.generate(batch[0], max_length=4, **options)
  # In a file they are for those who use that mode.
  if "scoring" in options:
    return
  for name, value in options.items():
    setattr(tiny.generation_config, name, value)
  tiny.generate(batch[0], max_length=4)


def test_counts_may_be_numpys(tiny, batch):
  """As lengths may."""
  for options in ({"no_repeat_ngram_size": 2}, {"max_length": 4}):
    plain = tiny.generate(batch[0], **options).sequences
    counts = {name: np.int64(value) for name, value in options.items()}
    found = tiny.generate(batch[0], **counts).sequences
    np.testing.assert_array_equal(found, plain)


def test_a_files_option_counts_and_can_be_overridden(tiny, batch):
  tiny.generation_config.num_beams = 4
  tiny.generation_config.penalty_alpha = 0.6
  with pytest.raises(ValueError, match=r"penalty_alpha=0\.6"):
    tiny.generate(batch[0], max_length=4)
  found = tiny.generate(
    batch[0], max_length=4, penalty_alpha=0.0, output_scores=True
  )
  assert found.scores[0].shape[0] == 4 * len(batch[0])
  found = tiny.generate(
    batch[0], max_length=4, num_beams=1, penalty_alpha=0.0, output_scores=True
  )
  assert found.scores[0].shape[0] == len(batch[0])
