"""Properties of the pair: scan, remat, causality, segments, padding rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.generation.decode_params import unstack
from encdec.model import FlaxEncoderDecoderModule, init_params

SMALL = {
  "vocab_size": 37,
  "hidden_size": 32,
  "num_attention_heads": 4,
  "intermediate_size": 48,
  "max_position_embeddings": 24,
  "initializer_range": 0.2,
}


@pytest.fixture(scope="module")
def config():
  bert = ARCHS["bert"]
  gpt2 = {
    **ARCHS["gpt2"].PRESETS["tiny"],
    "vocab_size": 41,
    "n_embd": 24,
    "initializer_range": 0.2,
  }
  return EncDecConfig(
    bert.stack_config({**bert.PRESETS["tiny"], **SMALL}, "encoder"),
    ARCHS["gpt2"].stack_config(gpt2, "decoder"),
    vocab_multiple=16,
  )


@pytest.fixture(scope="module")
def params(config):
  return init_params(FlaxEncoderDecoderModule(config), jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(0)
  tokens = rng.integers(1, 37, (2, 8))
  index = np.broadcast_to(np.arange(8), (2, 8))
  source = np.where(index < [[8], [5]], 1, 0)
  target = rng.integers(1, 37, (2, 6))
  index = index[:, :6]
  segments = np.where(index < [[6], [4]], 1, 0)
  arrays = {
    "encoder_tokens": tokens,
    "encoder_segments": source,
    "encoder_positions": np.broadcast_to(np.arange(8), (2, 8)),
    "decoder_inputs": target,
    "decoder_segments": segments,
    "decoder_positions": index,
  }
  return {k: jnp.asarray(v, jnp.int32) for k, v in arrays.items()}


@functools.partial(jax.jit, static_argnames=("module", "dropout"))
def _loss_and_grad(module, params, batch, dropout=False):
  def loss(params):
    key = jax.random.key(7) if dropout else None
    out = module.apply({"params": params}, **batch, dropout_key=key)
    log_probs = jax.nn.log_softmax(out.logits)
    chosen = jnp.take_along_axis(
      log_probs, batch["decoder_inputs"][..., None], axis=-1
    )[..., 0]
    return -(chosen * (batch["decoder_segments"] != 0)).sum()

  return jax.value_and_grad(loss)(params)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
  "options",
  [
    {"scan_unroll": 2},
    {"remat": "full"},
    {"remat": "ctx"},
    {"remat": "qkv+ctx+out+mlp"},
  ],
  ids=str,
)
def test_scan_and_remat_change_nothing(config, params, batch, options):
  plain = FlaxEncoderDecoderModule(config)
  expected, grads = _loss_and_grad(plain, params, batch, True)
  module = FlaxEncoderDecoderModule(config, **options)
  loss, ours = _loss_and_grad(module, params, batch, True)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    ours,
    grads,
  )
  without, _ = _loss_and_grad(plain, params, batch, False)
  assert abs(without - expected) > 1e-2, "dropout did nothing"


def test_remat_recomputes(config, params, batch):
  """What a policy names is kept; everything else is computed again."""

  def kept(remat):
    module = FlaxEncoderDecoderModule(config, remat=remat)

    def loss(params):
      return module.apply({"params": params}, **batch).logits.sum()

    _, backward = jax.eval_shape(functools.partial(jax.vjp, loss), params)
    leaves = jax.tree.leaves(backward)
    return sum(int(np.prod(leaf.shape)) for leaf in leaves)

  kept = [
    kept(remat)
    for remat in ("full", "ctx", "ctx+out", "qkv+ctx+out+mlp", "none")
  ]
  assert kept == sorted(set(kept))


def test_an_unknown_remat_name_is_refused(config, params, batch):
  module = FlaxEncoderDecoderModule(config, remat="qkv+everything")
  with pytest.raises(ValueError, match="'everything' is unknown"):
    module.apply({"params": params}, **batch)


def test_looped_equals_scanned(config, params, batch):
  module = FlaxEncoderDecoderModule(config)
  scanned, _ = _loss_and_grad(module, params, batch, True)
  looped, _ = _loss_and_grad(module, unstack(params, module), batch, True)
  np.testing.assert_allclose(looped, scanned, rtol=1e-6)


def test_causality_by_gradient(config, params, batch):
  module = FlaxEncoderDecoderModule(config)
  table = params["decoder"]["embeddings"]["tokens"]["embedding"]
  embeds = table[batch["decoder_inputs"]]
  encoded = module.apply(
    {"params": params},
    batch["encoder_tokens"],
    batch["encoder_segments"],
    batch["encoder_positions"],
    method="encode",
  )

  @jax.jit
  def influence(embeds):
    def states(embeds):
      return module.apply(
        {"params": params},
        tokens=None,
        embeds=embeds,
        segments=batch["decoder_segments"],
        positions=batch["decoder_positions"],
        encoder_states=encoded.states,
        encoder_segments=batch["encoder_segments"],
        method="decode_states",
      ).states[0, :, 0]

    return jnp.abs(jax.jacobian(states)(embeds)[:, 0]).sum(-1)

  matrix = np.asarray(influence(embeds))
  assert (matrix[~np.tri(6, dtype=bool)] == 0).all()
  assert (matrix[np.tri(6, dtype=bool)] > 0).all()


def test_padding_is_not_seen(config, params, batch):
  module = FlaxEncoderDecoderModule(config)
  apply = jax.jit(lambda batch: module.apply({"params": params}, **batch))
  logits = apply(batch).logits
  changed = dict(batch)
  tokens = batch["encoder_tokens"]
  padding = batch["encoder_segments"] == 0
  changed["encoder_tokens"] = jnp.where(padding, tokens + 1, tokens)
  real = np.asarray(batch["decoder_segments"]) != 0
  np.testing.assert_array_equal(apply(changed).logits[real], logits[real])
  changed["encoder_tokens"] = tokens.at[1, 0].add(1)
  assert np.abs(apply(changed).logits - logits)[1].max() > 1e-3


def test_packed_rows_equal_rows_alone(config, params, batch):
  """Two pairs in one row, by segments and positions, see only themselves."""
  module = FlaxEncoderDecoderModule(config)

  def pair(source, target, number):
    return {
      "encoder_tokens": source,
      "encoder_segments": np.full_like(source, number),
      "encoder_positions": np.arange(source.size),
      "decoder_inputs": target,
      "decoder_segments": np.full_like(target, number),
      "decoder_positions": np.arange(target.size),
    }

  rng = np.random.default_rng(1)
  sizes = ((5, 3), (3, 4))
  pairs = [
    pair(rng.integers(1, 37, s), rng.integers(1, 37, t), n + 1)
    for n, (s, t) in enumerate(sizes)
  ]

  def run(rows):
    rows = {k: jnp.asarray(v, jnp.int32)[None] for k, v in rows.items()}
    return np.asarray(module.apply({"params": params}, **rows).logits[0])

  packed = run({k: np.concatenate([p[k] for p in pairs]) for k in pairs[0]})
  alone = np.concatenate([run(p) for p in pairs])
  np.testing.assert_allclose(packed, alone, atol=1e-5)


def test_padding_rows_of_the_vocabulary(config, params, batch):
  decoder = params["decoder"]["embeddings"]["tokens"]["embedding"]
  assert decoder.shape[0] == 48 and not decoder[41:].any()
  module = FlaxEncoderDecoderModule(config)
  out = module.apply({"params": params}, **batch)
  assert out.logits.shape[-1] == 48
  assert (out.logits[..., 41:] == jnp.finfo(jnp.float32).min).all()
  _, grads = _loss_and_grad(module, params, batch)
  table = grads["decoder"]["embeddings"]["tokens"]["embedding"]
  assert not table[41:].any() and table[:41].any()


def test_the_pooler_gets_no_gradient(config, params, batch):
  _, grads = _loss_and_grad(FlaxEncoderDecoderModule(config), params, batch)
  assert not grads["encoder"]["pooler"]["kernel"].any()


def test_computing_in_bfloat16(config, params, batch):
  module = FlaxEncoderDecoderModule(config, dtype=jnp.bfloat16)
  out = module.apply({"params": params}, **batch)
  assert out.decoder.states.dtype == jnp.bfloat16
  assert out.logits.dtype == jnp.float32
  exact = FlaxEncoderDecoderModule(config).apply({"params": params}, **batch)
  np.testing.assert_allclose(out.logits, exact.logits, atol=0.3)
  half = FlaxEncoderDecoderModule(config, param_dtype=jnp.bfloat16)
  made = jax.eval_shape(lambda: init_params(half, jax.random.key(0)))
  assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {
    jnp.dtype(jnp.bfloat16)
  }


def test_decoding_refuses_stacked_layers(config, params, batch):
  module = FlaxEncoderDecoderModule(config)
  states = jnp.zeros((2, 8, 32))
  with pytest.raises(ValueError, match=r"pass unstack\(params, module\)"):
    module.apply(
      {"params": params}, states, batch["encoder_segments"],
      method="cross_cache",
    )  # fmt: skip
