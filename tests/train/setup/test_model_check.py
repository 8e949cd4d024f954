"""What does not fit a model's tables is refused by its key."""

import dataclasses

import pytest

from configs import dates
from encdec.special_tokens import SpecialTokens
from train import generation_settings
from train.errors import Refusal
from train.setup import model_check
from train.setup.modules import preset_module

TOKENS = SpecialTokens(start=2, end=(3,), pad=0, where={})
SIZES = {"encoder": 100, "decoder": 100}


def check(vocab_sizes=SIZES, tokens=TOKENS, **keys):
  config = dates.get_config()
  model = preset_module(config).config
  settings = generation_settings.resolve(config)
  for key, value in keys.items():
    section, name = key.split("__")
    config[section][name] = value
  model_check.check(config, model, vocab_sizes, tokens, settings)


@pytest.mark.parametrize(
  ("keys", "message"),
  [
    (
      {"data__max_source_length": 1 << 19},
      r"data\.max_source_length = 524288: .*raise model\.encoder_positions",
    ),
    (
      {"vocab_sizes": SIZES | {"encoder": 1 << 20}},
      r"data\.source_tokenizer has 1048576 tokens.*model\.grow_vocabulary",
    ),
    (
      {"tokens": dataclasses.replace(TOKENS, pad=1 << 20)},
      r"the pad token has the id 1048576.*model\.pad_token",
    ),
  ],
)
def test_what_is_beyond_a_table_is_refused(keys, message):
  check()
  with pytest.raises(Refusal, match=message):
    check(**keys)
