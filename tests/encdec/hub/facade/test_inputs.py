"""Inputs of a call get PyTorch's defaults, and bad ones are named."""

import numpy as np
import pytest

from encdec import shift_tokens_right


def test_shifted_labels_are_decoder_inputs(tiny, batch):
  labels = np.array([[5, 6, 7, -100], [8, -100, -100, -100]], np.int32)
  ids = shift_tokens_right(labels, 1, 3)
  np.testing.assert_array_equal(ids, [[3, 5, 6, 7], [3, 8, 1, 1]])
  given = tiny(batch[0], decoder_input_ids=ids, decoder_attention_mask=ids != 1)
  tiny.config.pad_token_id, tiny.config.decoder_start_token_id = 1, 3
  np.testing.assert_array_equal(
    tiny(batch[0], labels=labels).logits, given.logits
  )


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"input_ids": np.zeros((2, 41), np.int32)}, "input_ids is 41 tokens long"),
    ({"input_ids": np.full((2, 3), 37)}, "input_ids holds ids from 37 to 37"),
    ({"decoder_input_ids": np.full((2, 3), -1)}, "decoder_input_ids holds ids"),
    ({"input_ids": np.zeros((2,), np.int32)}, r"shape \[batch, length\]"),
    ({"input_ids": np.zeros((2, 3))}, "must be whole numbers"),
    ({"input_ids": None}, "pass either input_ids or its embeddings"),
    (
      {"input_ids": None, "inputs_embeds": np.zeros((2, 6, 5))},
      r"in place of input_ids have shape \[2, 6, 5\]",
    ),
    (
      {"token_type_ids": np.zeros((2, 5), int)},
      r"token types of input_ids have shape \[2, 5\]; it must be \[2, 6\]",
    ),
    (
      {"position_ids": np.zeros((1, 5), int)},
      r"position ids of input_ids have shape \[2, 5\]; it must be \[2, 6\]",
    ),
    (
      {"encoder_outputs": (np.zeros((3, 6, 16)),)},
      "the source has 3 rows and the target 2",
    ),
    (
      {"encoder_outputs": (np.zeros((2, 6, 3)),)},
      r"encoder_outputs hold states of shape \[2, 6, 3\]",
    ),
    ({"decoder_input_ids": None}, "pass either decoder_input_ids"),
    ({"attention_mask": np.ones((2, 5))}, r"mask of input_ids has shape"),
    ({"attention_mask": np.ones((2, 6, 6), int)}, "call encode"),
    ({"position_ids": np.full((1, 6), 40)}, "position ids of input_ids holds"),
    ({"labels": np.full((2, 4), 41)}, "labels hold ids from 41"),
    ({"labels": np.full((2, 5), 7)}, "they must agree"),
    ({"use_cache": True, "output_attentions": True}, "leave out use_cache"),
  ],
)
def test_bad_input_is_named(tiny, batch, kwargs, message):
  given = {"input_ids": batch[0], "decoder_input_ids": batch[1], **kwargs}
  with pytest.raises(ValueError, match=message):
    tiny(**given)
