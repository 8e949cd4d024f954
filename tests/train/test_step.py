"""The step on one device: accumulation, refusals to update, what stays put."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from encdec.archs import ARCHS
from encdec.config import EncDecConfig
from encdec.model import FlaxEncoderDecoderModule, init_params
from encdec.sharding import DEFAULT_RULES
from train import losses, state, step
from train.losses import LossConfig
from train.mesh import MeshConfig, make_mesh
from train.optim.optimizer import make_optimizer
from train.optim.settings import OptimConfig

VOCAB, ROWS = 21, 8


def module_of(dropout: float = 0.0, **fields) -> FlaxEncoderDecoderModule:
  hub = ARCHS["bert"].PRESETS["tiny"] | {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": dropout,
    "attention_probs_dropout_prob": dropout,
    "initializer_range": 0.3,
  }
  return FlaxEncoderDecoderModule(
    EncDecConfig(
      ARCHS["bert"].stack_config(hub, "encoder"),
      ARCHS["bert"].stack_config(hub, "decoder"),
      vocab_multiple=16,
    ),
    rules=DEFAULT_RULES,
    **fields,
  )


def batch_of(seed: int, rows: int = ROWS) -> dict[str, jax.Array]:
  """Rows of 1 to 7 target tokens: microbatches of unequal weight."""
  rng = np.random.default_rng(seed)

  def side(lengths, length):
    segments = (np.arange(length) < lengths[:, None]).astype(np.int32)
    tokens = rng.integers(1, VOCAB, (rows, length)) * segments
    return tokens.astype(np.int32), segments, np.arange(length) * segments

  source = side(rng.integers(2, 10, rows), 9)
  target = side(np.arange(rows) % 7 + 1, 7)
  batch = {
    "encoder_tokens": source[0],
    "encoder_segments": source[1],
    "encoder_positions": source[2],
    "decoder_inputs": np.roll(target[0], 1, axis=1),
    "decoder_targets": target[0],
    "decoder_segments": target[1],
    "decoder_positions": target[2],
    "decoder_weights": target[1],
  }
  return {
    name: jnp.asarray(
      value, jnp.float32 if name == "decoder_weights" else jnp.int32
    )
    for name, value in batch.items()
  }


OPTIM = OptimConfig(
  name="adamw",
  lr=1e-2,
  schedule="linear",
  warmup_steps=2,
  b1=0.9,
  b2=0.98,
  eps=1e-8,
  weight_decay=0.1,
  clip_norm=1.0,
)
OPTIMIZER = make_optimizer(OPTIM, 20, 16)


# Compiling is most of the time of these tests, and not what they test.
QUICK = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}


def jitted(module, mesh, **config):
  abstract = state.abstract_state(module, OPTIMIZER, mesh, DEFAULT_RULES)
  function = step.jit_train_step(
    module=module,
    optimizer=OPTIMIZER,
    config=step.StepConfig(**({"seed": 7} | config)),
    mesh=mesh,
    rules=DEFAULT_RULES,
    shardings=state.state_shardings(abstract),
  )
  return function, abstract


def compiled(module, mesh, **config):
  function, abstract = jitted(module, mesh, **config)
  return function.lower(abstract, batch_of(0)).compile(compiler_options=QUICK)


@pytest.fixture(scope="module")
def mesh():
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  with jax.set_mesh(mesh):
    yield mesh


@pytest.fixture(scope="module")
def host_params():
  params = jax.jit(lambda key: init_params(module_of(), key))(jax.random.key(0))
  return jax.tree.map(np.asarray, params)


@pytest.fixture(scope="module")
def whole_step(mesh):
  return compiled(module_of(), mesh)


@pytest.fixture
def fresh(mesh, host_params):
  """A new state each time it is called: a step takes its state away."""
  return lambda: state.create_state(
    module_of(), OPTIMIZER, mesh, DEFAULT_RULES, jax.random.key(0), host_params
  )


def assert_same(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


def host(tree):
  return jax.tree.map(np.array, tree)


def test_a_tiny_step_gives_these_numbers(whole_step, fresh):
  _, metrics = whole_step(fresh(), batch_of(0))
  got = {name: float(value) for name, value in metrics.items()}
  assert got == pytest.approx(
    {
      "loss": 3.233126,
      "grad_norm": 3.825518,
      "lr": 0.005,
      "finite": 1.0,
      "target_tokens": 29.0,
      "source_tokens": 35.0,
      "pairs": 8.0,
    },
    rel=1e-4,
  ), "the same seed and batch gave another step than before; say why"


def test_the_loss_falls_and_what_no_loss_reaches_stays(whole_step, fresh):
  now, batch, losses = fresh(), batch_of(0), []
  before = host(now.params)
  for _ in range(8):
    now, metrics = whole_step(now, batch)
    losses.append(float(metrics["loss"]))
  assert losses[-1] < 0.9 * losses[0]
  assert int(now.step) == 8
  assert_same(now.params["encoder"]["pooler"], before["encoder"]["pooler"])
  for side in ("encoder", "decoder"):
    table = np.array(now.params[side]["embeddings"]["tokens"]["embedding"])
    assert table.shape == (32, 16) and not table[VOCAB:].any()
    assert np.any(table[:VOCAB] != _table(before, side)[:VOCAB])
  assert not np.array(now.params["decoder"]["head"]["bias"])[VOCAB:].any()
  moments = jax.tree_util.tree_leaves_with_path(now.opt_state)
  assert len(moments) > 50
  assert not any("pooler" in str(path) for path, _ in moments)


def _table(params, side):
  return params[side]["embeddings"]["tokens"]["embedding"]


def test_microbatches_add_up_to_the_batch(whole_step, fresh, mesh):
  batch = batch_of(1)
  one, expected = whole_step(fresh(), batch)
  four, got = compiled(module_of(), mesh, accumulate_steps=4, loss_chunks=3)(
    fresh(), batch
  )
  for name in expected:
    np.testing.assert_allclose(got[name], expected[name], rtol=2e-6)
  # Adam's first update is about the gradient's sign: its moments tell more.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-7),
    four.opt_state,
    one.opt_state,
  )
  # A mean of the microbatches' means is another number.
  weights = batch["decoder_weights"]
  part_of = jnp.arange(ROWS)[:, None] % 4
  means = []
  for number in range(4):
    part = {"decoder_weights": jnp.where(part_of == number, weights, 0.0)}
    means.append(float(whole_step(fresh(), batch | part)[1]["loss"]))
  assert abs(np.mean(means) / float(expected["loss"]) - 1) > 1e-4


def test_a_step_that_is_not_finite_keeps_the_whole_state(whole_step, fresh):
  now, _ = whole_step(fresh(), batch_of(0))
  before = host(now)
  bad = batch_of(1)
  bad["decoder_weights"] = bad["decoder_weights"].at[0, 0].set(jnp.inf)
  now, metrics = whole_step(now, bad)
  assert float(metrics["finite"]) == 0.0
  assert_same(now, before)
  now, metrics = whole_step(now, batch_of(1))
  assert float(metrics["finite"]) == 1.0 and int(now.step) == 2


def test_evaluation_gives_sums_without_dropout_or_smoothing(
  whole_step, fresh, mesh
):
  abstract = state.abstract_state(module_of(), OPTIMIZER, mesh, DEFAULT_RULES)
  evaluate = step.jit_eval_step(
    module=module_of(0.5),
    mesh=mesh,
    rules=DEFAULT_RULES,
    shardings=state.state_shardings(abstract),
    loss_chunks=2,
  )
  batch = batch_of(2)
  # A last batch is filled with rows of segment and weight 0.
  batch = {name: value.at[6:].set(0) for name, value in batch.items()}
  got = host(evaluate(fresh().params, batch))
  _, metrics = whole_step(fresh(), batch)
  np.testing.assert_allclose(
    got["loss_sum"] / got["weight"], metrics["loss"], rtol=1e-6
  )
  assert got["weight"] == metrics["target_tokens"] == np.sum(np.arange(1, 7))
  np.testing.assert_array_equal(got["example_weight"], [*range(1, 7), 0, 0])
  np.testing.assert_array_equal(got["example_loss"][6:], 0)
  np.testing.assert_allclose(
    got["example_loss"].sum(), got["loss_sum"], rtol=1e-6
  )
  assert metrics["pairs"] == 6
  assert 0 <= got["correct"] < got["weight"]
  assert got["example_correct"].sum() == got["correct"]
  targets = _argmax(fresh().params, batch)
  again = evaluate(fresh().params, batch | {"decoder_targets": targets})
  assert float(again["correct"]) == got["weight"]
  np.testing.assert_array_equal(again["example_correct"], got["example_weight"])


@jax.jit
def _argmax(params, batch):
  states, head = losses.decoder_states(params, batch, module_of(), None)
  return jnp.argmax(head(states), axis=-1).astype(jnp.int32)


@pytest.mark.parametrize("rng", ["threefry", "unsafe_rbg"])
def test_dtypes_of_storage_and_computation_are_apart(mesh, rng):
  module = module_of(0.5, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
  abstract = state.abstract_state(module, OPTIMIZER, mesh, DEFAULT_RULES)
  config = step.StepConfig(seed=0, accumulate_steps=2, rng=rng)

  def run(state, batch):
    return step.train_step(
      state, batch, module=module, optimizer=OPTIMIZER, config=config
    )

  after, metrics = jax.eval_shape(run, abstract, batch_of(0))
  signature = lambda leaf: (leaf.shape, leaf.dtype)
  assert jax.tree.map(signature, after) == jax.tree.map(signature, abstract)
  assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {
    jnp.dtype(jnp.bfloat16)
  }
  moments = [leaf for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim]
  assert {leaf.dtype for leaf in moments} == {jnp.dtype(jnp.float32)}
  assert {leaf.dtype for leaf in metrics.values()} == {jnp.dtype(jnp.float32)}


def test_parameters_to_start_from_must_be_the_models(mesh, host_params):
  def create(change):
    params = jax.tree.map(lambda leaf: leaf, host_params)
    change(params)
    return state.create_state(
      module_of(), OPTIMIZER, mesh, DEFAULT_RULES, jax.random.key(0), params
    )

  def drop(params):
    del params["decoder"]["head"]["bias"]

  def add(params):
    params["decoder"]["extra"] = np.zeros(3)

  def reshape(params):
    params["decoder"]["head"]["bias"] = np.zeros(VOCAB)

  for change, message in (
    (drop, "'decoder/head/bias' is missing"),
    (add, "'decoder/extra' is not the model's"),
    (reshape, r"'decoder/head/bias' has the shape \(21,\).*wants \(32,\)"),
  ):
    with pytest.raises(ValueError, match=message):
      create(change)


def test_a_step_outside_its_mesh_is_refused(mesh):
  other = make_mesh(MeshConfig(data=2), jax.devices()[:2])
  function, abstract = jitted(module_of(), mesh)
  with (
    jax.set_mesh(other),
    pytest.raises(ValueError, match=r"inside `jax.set_mesh\(mesh\)`"),
  ):
    function.trace(abstract, batch_of(0))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"accumulate_steps": 0}, r"train\.accumulate_steps=0 must be"),
    ({"rng": "rbg"}, r"train\.rng='rbg' is unknown; .*threefry, unsafe_rbg"),
  ],
)
def test_wrong_settings_are_refused_by_name(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(step.StepConfig(seed=0), **change)


@pytest.mark.sample(1)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_needs_no_promotion_of_dtypes(mesh, dtype):
  module = module_of(0.1, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype))
  with jax.numpy_dtype_promotion("strict"):
    function, abstract = jitted(
      module,
      mesh,
      accumulate_steps=2,
      loss_chunks=2,
      loss=LossConfig(label_smoothing=0.1),
    )
    # Whatever is refused is refused while it is traced.
    function.lower(abstract, batch_of(0))
    step.jit_eval_step(
      module=module,
      mesh=mesh,
      rules=DEFAULT_RULES,
      shardings=state.state_shardings(abstract),
      loss_chunks=2,
    ).lower(abstract.params, batch_of(0))
