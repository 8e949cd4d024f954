"""Every architecture's table covers its tree, and its config its refusals."""

import inspect
import math

import jax
import numpy as np
import pytest
import transformers

from encdec.archs import ARCHS
from encdec.archs.weight_rule import to_hub, to_tree
from encdec.config import EncDecConfig
from encdec.model import FlaxEncoderDecoderModule, param_shapes


def _config(encoder, decoder, preset, **options):
  return EncDecConfig(
    ARCHS[encoder].stack_config(ARCHS[encoder].PRESETS[preset], "encoder"),
    ARCHS[decoder].stack_config(ARCHS[decoder].PRESETS[preset], "decoder"),
    **options,
  )


def _count(tree):
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


PAIRS = [
  ("bert", "bert"),
  ("roberta", "roberta"),
  ("bert-generation", "bert-generation"),
  ("bert", "gpt2"),
  ("bert", "bart"),
  ("bert", "mbart"),
  ("bert", "pegasus"),
  ("bert", "marian"),
  ("bert", "blenderbot"),
  ("bert", "xglm"),
  ("distilbert", "electra"),
  ("albert", "electra"),
  ("electra", "electra"),
  ("roberta-prelayernorm", "roberta-prelayernorm"),
]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_weights_cover_the_tree(encoder, decoder, tied):
  hub = {**ARCHS[decoder].PRESETS["tiny"], "tie_word_embeddings": tied}
  config = EncDecConfig(
    ARCHS[encoder].stack_config(ARCHS[encoder].PRESETS["tiny"], "encoder"),
    ARCHS[decoder].stack_config(hub, "decoder"),
  )
  shapes = param_shapes(FlaxEncoderDecoderModule(config))
  for side, model_type in (("encoder", encoder), ("decoder", decoder)):
    leaves = jax.tree_util.tree_leaves_with_path(shapes[side])
    paths = {"/".join(key.key for key in path) for path, _ in leaves}
    table = ARCHS[model_type].weights(getattr(config, side))
    assert paths == {weight.path for weight in table}
    names = [(weight.hub, weight.part) for weight in table]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_conversion_is_undone_exactly(encoder, decoder):
  config = _config(encoder, decoder, "tiny").decoder
  shapes = param_shapes(
    FlaxEncoderDecoderModule(_config(encoder, decoder, "tiny"))
  )["decoder"]
  rng = np.random.default_rng(0)
  for weight in ARCHS[decoder].weights(config):
    leaf = shapes
    for name in weight.path.split("/"):
      leaf = leaf[name]
    shape = leaf.shape[1:] if weight.layered else leaf.shape
    array = rng.normal(size=shape).astype(np.float32)
    hub = to_hub(array, weight)
    joined = np.concatenate([hub] * weight.parts, axis=-1)
    np.testing.assert_array_equal(to_tree(joined, weight, config), array)


@pytest.mark.parametrize(
  "encoder, decoder, preset, expected",
  [
    # Hub layout, heads and one pooler counted.
    ("bert", "bert", "base", 247_363_386),
    # GPT-2's 124,439,808, 12 x (4 x 768 x 769 + 2 x 768) of cross-attention.
    ("bert", "gpt2", "base", 109_482_240 + 124_439_808 + 28_366_848),
  ],
)
def test_full_size(encoder, decoder, preset, expected):
  config = _config(encoder, decoder, preset)
  assert _count(param_shapes(FlaxEncoderDecoderModule(config))) == expected
  padded = _config(encoder, decoder, preset, vocab_multiple=128)
  assert _count(param_shapes(FlaxEncoderDecoderModule(padded))) > expected


@pytest.mark.parametrize(
  "name, role",
  [("gpt2", "encoder"), ("distilbert", "decoder"), ("albert", "decoder")],
)
def test_a_side_that_an_architecture_cannot_be_is_refused(name, role):
  preset = ARCHS[name].PRESETS["tiny"]
  with pytest.raises(ValueError, match=f"{name} cannot be the {role}"):
    ARCHS[name].stack_config(preset, role)


_RELATIVE = {"position_embedding_type": "relative_key"}


@pytest.mark.parametrize("name", ARCHS)
def test_its_classes_are_pytorchs(name):
  arch = ARCHS[name]
  encoder, decoder = arch.PYTORCH_CLASSES
  assert hasattr(transformers, encoder)
  if decoder is not None:
    assert hasattr(transformers, decoder)
    assert arch.stack_config(arch.PRESETS["tiny"], "decoder")
    return
  with pytest.raises(ValueError, match="decoder"):
    arch.stack_config(arch.PRESETS["tiny"], "decoder")


@pytest.mark.parametrize("name", ARCHS)
def test_it_says_whether_transformers_4_had_a_flax_pair_of_it(name):
  """In its own file: what it does not say must not be taken for a yes."""
  assert type(vars(ARCHS[name])["IN_FLAX_457"]) is bool
  source = inspect.getsource(ARCHS[name])
  assert source.count("\nIN_FLAX_457 = ") == 1


@pytest.mark.parametrize(
  "name, change, message",
  [
    ("bert", {"hidden_size": 95}, "hidden_size=95 is no multiple of"),
    (
      "bert",
      {"num_attention_heads": 0},
      "no multiple of num_attention_heads=0",
    ),
    ("bert", {"num_hidden_layers": 0}, "num_layers=0 must be a whole"),
    ("bert", {"hidden_dropout_prob": 1.5}, "embedding_dropout=1.5 must lie in"),
    # Refused before a layer is walked through or a table made.
    ("bert", {"num_hidden_layers": 10**9}, "num_layers=1000000000 must be"),
    ("bert", {"vocab_size": 10**30}, "vocab_size=10+ must be a whole number"),
    ("bert", {"type_vocab_size": -1}, "type_vocab_size=-1 must be a whole"),
    ("bert", {"layer_norm_eps": -1.0}, "norm_epsilon=-1.0 must lie"),
    ("bert", {"initializer_range": math.nan}, "init_std=nan must be"),
    ("bert", _RELATIVE, "'relative_key' is not"),
    ("electra", _RELATIVE, "'relative_key' is not"),
    ("electra", {"embedding_size": 0}, "embedding_width=0 must be a whole"),
    ("albert", _RELATIVE, "'relative_key' is not"),
    ("albert", {"num_hidden_groups": 3}, "num_hidden_groups=3 is not"),
    ("albert", {"inner_group_num": 2}, "inner_group_num=2 is not"),
    ("distilbert", {"n_heads": 0}, "dim=96 is no multiple of n_heads=0"),
    ("distilbert", {"dim": 95}, "dim=95 is no multiple of n_heads"),
    ("roberta-prelayernorm", _RELATIVE, "'relative_key' is not"),
    ("roberta-prelayernorm", {"pad_token_id": None}, "pad_token_id=None"),
  ],
)
def test_bad_configs_are_refused(name, change, message):
  hub = {**ARCHS[name].PRESETS["tiny"], **change}
  with pytest.raises(ValueError, match=message):
    ARCHS[name].stack_config(hub, "encoder")
