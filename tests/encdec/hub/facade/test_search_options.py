"""Options that a search cannot follow are refused by name."""

import numpy as np
import pytest


@pytest.mark.parametrize(
  ("options", "error", "message"),
  [
    ({"num_beams": 2, "num_return_sequences": 3}, ValueError, "exceeds num_b"),
    ({"num_return_sequences": 2}, ValueError, "greedy search finds one"),
    ({"num_beams": 50}, ValueError, "num_beams=50 exceeds the vocabulary"),
    ({"num_beams": 0}, ValueError, "num_beams=0"),
    ({"num_beams": 3, "num_beam_groups": 2}, ValueError, "no multiple of"),
    ({"diversity_penalty": 0.5}, ValueError, "needs num_beam_groups"),
    ({"early_stopping": "often"}, ValueError, "early_stopping='often'"),
    ({"do_sample": True}, ValueError, "prng_key"),
    ({"penalty_alpha": 0.6}, ValueError, "penalty_alpha=0.6 is not supported"),
    ({"stop_strings": ["."]}, ValueError, "stop_strings"),
    ({"guidance_scale": 2.0}, ValueError, "guidance_scale=2.0"),
    ({"repetition_penalty": 0.0}, ValueError, "repetition_penalty=0.0 must"),
    ({"repetition_penalty": np.nan}, ValueError, "repetition_penalty=nan must"),
    ({"length_penalty": "a"}, ValueError, "length_penalty='a' must be a num"),
    ({"diversity_penalty": np.nan}, ValueError, "diversity_penalty=nan must"),
    ({"no_repeat_ngram_size": True}, ValueError, "size=True must be a whole"),
    (
      {"exponential_decay_length_penalty": (2.5, 1.1)},
      ValueError,
      r"penalty\[0\]=2.5 must be a whole",
    ),
    ({"no_repeat_ngram_size": -1}, ValueError, "no_repeat_ngram_size=-1"),
    ({"forced_bos_token_id": 41}, ValueError, "forced_bos_token_id holds 41"),
    ({"forced_bos_token_id": [5, 6]}, ValueError, "must be one id"),
    ({"bad_words_ids": [5]}, ValueError, "bad_words_ids"),
    ({"bad_words_ids": [[5, 99]]}, ValueError, "bad_words_ids holds 99"),
    ({"sequence_bias": {5: 1.0}}, ValueError, "sequence_bias"),
    ({"suppress_tokens": ["a"]}, ValueError, "suppress_tokens"),
    ({"encoder_no_repeat_ngram_size": 2}, ValueError, "one vocabulary"),
    ({"logits_processor": 3}, TypeError, "logits_processor=3 is no function"),
    ({"word_starts": [True]}, ValueError, "one bool for each"),
    ({"trace": False}, ValueError, "jax.disable_jit"),
    ({"scoring": "flax", "num_beams": 2}, ValueError, "scoring='flax' is not"),
    ({"max_lenght": 5}, TypeError, "no option 'max_lenght'"),
    ({"seed": 0}, TypeError, "seed=0: .*prng_key"),
    ({"generation_config": 7}, TypeError, "attention_mask= or"),
    ({"max_new_tokens": 0}, ValueError, "max_new_tokens=0 must be at least 1"),
    ({"max_new_tokens": 2.9}, ValueError, "max_new_tokens=2.9 must be a whole"),
    ({"num_beams": "2"}, ValueError, "num_beams='2' must be a whole number"),
    ({"num_beams": 2, "length_penalty": 99.0}, ValueError, "length_penalty=99"),
    (
      {"decoder_input_ids": [[3, 5]]},
      ValueError,
      r"decoder_input_ids of shape \[1, 2\]",
    ),
    (
      {"decoder_input_ids": np.zeros((2, 0), int)},
      ValueError,
      "at least one token",
    ),
    ({"attention_mask": [[1] * 6, [0] * 6]}, ValueError, "source 1 is empty"),
    ({"decoder_attention_mask": [[1, 1]] * 2}, ValueError, "is of a prompt"),
    ({"max_length": 1}, ValueError, "max_length allows 1 tokens"),
    ({"max_length": 41}, ValueError, "table ends at 40"),
    ({"max_length": 5, "min_length": 6}, ValueError, "min_length=6 exceeds"),
    ({"eos_token_id": 41}, ValueError, "end token 41 is outside"),
  ],
)
def test_options_that_cannot_be_honoured_are_refused(
  tiny, batch, options, error, message
):
  with pytest.raises(error, match=message):
    tiny.generate(batch[0], **options)
