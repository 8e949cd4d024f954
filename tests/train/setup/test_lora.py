"""The keys of adapters: what they make, and which values are refused."""

import pytest

from configs import dates
from encdec.adapters import LoraConfig
from train import validate
from train.errors import Refusal
from train.setup.lora import lora_config


def _config(**values):
  config = dates.get_config("smoke")
  for key, value in values.items():
    config.model[key] = value
  return config


def test_the_scale_is_one_unless_it_is_set():
  assert lora_config(_config()) is None
  lora = lora_config(_config(lora_rank=8))
  assert lora == LoraConfig(
    8, 8.0, ("*/query", "*/value"), False, ("*/cross_attention*",)
  )
  assert lora is not None and lora.scale == 1.0
  halved = lora_config(_config(lora_rank=8, lora_alpha=4.0, lora_dora=True))
  assert halved is not None and halved.scale == 0.5 and halved.dora


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"lora_rank": -1}, "model.lora_rank = -1: set it between"),
    ({"lora_dora": True}, "model.lora_dora = True, but model.lora_rank = 0"),
    ({"lora_alpha": 2.0}, "model.lora_alpha = 2.0, but model.lora_rank = 0"),
    (
      {"lora_rank": 2, "lora_alpha": -2.0},
      "model.lora_alpha=-2.0 must be finite and above 0",
    ),
    (
      {"lora_rank": 2, "lora_alpha": float("nan")},
      "model.lora_alpha=nan must be finite",
    ),
    ({"lora_rank": 2, "lora_targets": ()}, "model.lora_targets is empty"),
    ({"lora_rank": 2, "lora_targets": (3,)}, "model.lora_targets: 3 is no"),
    ({"lora_rank": 2, "lora_unfrozen": (3,)}, "model.lora_unfrozen: 3 is no"),
  ],
)
def test_values_that_no_adapter_has_are_one_line(values, message):
  with pytest.raises(Refusal, match=message) as caught:
    validate.check_values(_config(**values))
  assert "\n" not in str(caught.value)
