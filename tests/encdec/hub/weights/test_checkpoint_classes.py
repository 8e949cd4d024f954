"""Which of transformers' classes promise a language-model head."""

import pytest

from encdec.archs import ARCHS
from encdec.hub.weights.checkpoint_classes import class_names, has_lm_head


@pytest.mark.parametrize("name", ARCHS)
def test_decoders_have_a_head_and_encoders_have_none(name):
  encoder, decoder = ARCHS[name].PYTORCH_CLASSES
  assert not has_lm_head([encoder])
  assert decoder is None or has_lm_head([encoder, decoder])


def test_pretraining_classes_have_one_but_for_electras_discriminator():
  assert has_lm_head(["BertForPreTraining"])
  assert not has_lm_head(["ElectraForPreTraining"])


@pytest.mark.parametrize("value", [None, "BertLMHeadModel", {"a": 1}, 3])
def test_what_is_no_list_names_no_class(value):
  assert class_names(value) == ()
  assert class_names(["BertModel", 3]) == ("BertModel",)
