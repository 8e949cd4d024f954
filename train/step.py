"""The training step and the evaluation step: pure functions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from encdec import explicit_axes, sharding
from encdec.model import FlaxEncoderDecoderModule
from encdec.types import Params
from train import losses
from train.losses import Batch, LossConfig
from train.mesh import batch_sharding, replicated
from train.optim import ema
from train.optim.optimizer import Optimizer, merge
from train.state import TrainState, to_float32

Metrics = dict[str, Float[Array, ""]]

# "unsafe_rbg" is faster on TPU and gives up equal losses on different meshes.
RNG = {"threefry": "threefry2x32", "unsafe_rbg": "unsafe_rbg"}


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """What a step is, besides model and optimizer.

  Attributes:
    seed: of dropout.
    accumulate_steps: microbatches that a batch is cut into.
    loss: what is minimised.
    loss_chunks: see `losses.score_in_chunks`.
    rng: generator of dropout, a key of `RNG`.
  """

  seed: int
  accumulate_steps: int = 1
  loss: LossConfig = dataclasses.field(default_factory=LossConfig)
  loss_chunks: int = 1
  rng: str = "threefry"

  def __post_init__(self):
    for key in ("accumulate_steps", "loss_chunks"):
      if getattr(self, key) < 1:
        raise ValueError(
          f"train.{key}={getattr(self, key)} must be a positive integer"
        )
    if self.rng not in RNG:
      raise ValueError(
        f"train.rng={self.rng!r} is unknown; it is one of {', '.join(RNG)}"
      )


def train_step(
  state: TrainState,
  batch: Batch,
  *,
  module: FlaxEncoderDecoderModule,
  optimizer: Optimizer,
  config: StepConfig,
) -> tuple[TrainState, Metrics]:
  """One update by the mean loss of a batch `[B, ...]`.

  Metrics are float32 scalars: `loss` (nats a target token, with all that
  `config.loss` adds), `grad_norm` (before clipping, of what is not frozen),
  `lr` (and `lr/<pattern>` of each group), `finite`, `target_tokens`,
  `source_tokens`, `pairs`. Where `finite` is 0 the whole old state is kept.
  """
  explicit_axes.check({"params": state.params, **batch})
  key = jax.random.key(config.seed, impl=RNG[config.rng])
  key = jax.random.fold_in(key, state.step)
  trained, frozen = optimizer.split(state.params)

  def microbatch(rows: Batch, number: Int[Array, ""]):
    dropout_key = jax.random.fold_in(key, number)
    return sums(trained, frozen, rows, dropout_key, module, config)

  loss, weight, grads = accumulate(microbatch, batch, config, module.rules)
  loss = loss / weight
  grads = jax.tree.map(lambda grad: grad / weight, grads)
  grads = optimizer.hold(grads, state.step)
  grad_norm = optax.tree.norm(grads)
  finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
  new = update(state, grads, optimizer)
  new = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
  return new, {
    "loss": loss,
    "grad_norm": grad_norm,
    "finite": finite.astype(jnp.float32),
    "target_tokens": weight,
    **optimizer.learning_rates(state.step),
    **batch_counts(batch),
  }


def sums(
  trained: Params,
  frozen: Params,
  batch: Batch,
  dropout_key: Key[Array, ""],
  module: FlaxEncoderDecoderModule,
  config: StepConfig,
) -> tuple[Float[Array, ""], Float[Array, ""], Params]:
  """Sum of the loss, its weight, and the sum's gradient in float32."""

  def loss_sum(trained: Params):
    return losses.pair_loss(
      merge(trained, frozen),
      batch,
      module=module,
      dropout_key=dropout_key,
      config=config.loss,
      chunks=config.loss_chunks,
    )

  (loss, weight), grads = jax.value_and_grad(loss_sum, has_aux=True)(trained)
  return loss, weight, like_params(to_float32(grads), module.rules)


def update(
  state: TrainState, grads: Params, optimizer: Optimizer
) -> TrainState:
  """The state after an update, which is computed in float32."""
  trained, frozen = optimizer.split(state.params)
  stored = to_float32(trained)
  updates, opt_state = optimizer.tx.update(grads, state.opt_state, stored)
  trained = jax.tree.map(
    lambda old, now, change: (now + change).astype(old.dtype),
    trained,
    stored,
    updates,
  )
  average = state.ema
  if average is not None:
    average = ema.move(average, trained, state.step, optimizer.ema_decay)
  return TrainState(
    step=state.step + 1,
    params=merge(trained, frozen),
    opt_state=opt_state,
    ema=average,
  )


def accumulate(
  microbatch: Callable[[Batch, Int[Array, ""]], Any],
  batch: Batch,
  config: StepConfig,
  rules: sharding.Rules | None,
) -> Any:
  """The sum of `microbatch(rows, number)` over the parts of a batch, float32.

  Microbatch a takes rows a, a + A, a + 2A...: a contiguous cut would move rows
  between devices, since each holds a contiguous part of the batch.
  """
  parts = config.accumulate_steps
  if parts == 1:
    return microbatch(batch, jnp.zeros((), jnp.int32))

  def cut(x: Array) -> Array:
    x = jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)
    return sharding.constrain(
      x, (None, "batch", *(None,) * (x.ndim - 2)), rules
    )

  def body(total, part):
    loss, weight, grads = jax.tree.map(jnp.add, total, microbatch(*part))
    return (loss, weight, like_params(grads, rules)), None

  rows = {name: cut(x) for name, x in batch.items()}
  numbers = jnp.arange(parts, dtype=jnp.int32)
  one = {name: x[0] for name, x in rows.items()}
  loss, weight, grads = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
    jax.eval_shape(microbatch, one, numbers[0]),
  )
  start = (loss, weight, like_params(grads, rules))
  return jax.lax.scan(body, start, (rows, numbers))[0]


def like_params(tree: Params, rules: sharding.Rules | None) -> Params:
  """Lays gradients out as their parameters: sums then scatter, not repeat."""

  def place(path, leaf):
    axes = sharding.logical_axes(sharding.leaf_path(path))
    return sharding.constrain(leaf, axes, rules)

  return jax.tree_util.tree_map_with_path(place, tree)


def batch_counts(batch: Batch) -> Metrics:
  """Useful source tokens and pairs of a batch; padding is segment 0."""
  sources = batch["encoder_segments"]
  # A row's segments are numbered from 1.
  pairs = jnp.max(batch["decoder_segments"], axis=1)
  return {
    "source_tokens": jnp.sum(sources > 0).astype(jnp.float32),
    "pairs": jnp.sum(pairs).astype(jnp.float32),
  }


def eval_step(
  params: Params,
  batch: Batch,
  *,
  module: FlaxEncoderDecoderModule,
  loss_chunks: int = 1,
) -> dict[str, Array]:
  """Loss without smoothing or dropout, as sums; rows of weight 0 are padding.

  Gives `loss_sum` (nats), `weight` (target tokens), `correct` (tokens whose
  argmax is the target), and of each row `example_loss`, `example_weight` and
  `example_correct` [B].
  """
  explicit_axes.check({"params": params, **batch})
  vocab_size = module.config.decoder.vocab_size

  def score(logits: Array, targets: Array):
    nats = losses.token_losses(logits, targets, LossConfig(), vocab_size)
    return nats, jnp.argmax(logits, axis=-1) == targets

  states, head = losses.decoder_states(params, batch, module, None)
  nats, correct = losses.score_in_chunks(
    score, head, states, batch["decoder_targets"], loss_chunks
  )
  weights = batch["decoder_weights"].astype(jnp.float32)
  example_loss = jnp.sum(nats * weights, axis=1)
  example_weight = jnp.sum(weights, axis=1)
  example_correct = jnp.sum(jnp.where(correct, weights, 0.0), axis=1)
  return {
    "loss_sum": jnp.sum(example_loss),
    "weight": jnp.sum(example_weight),
    "correct": jnp.sum(example_correct),
    "example_loss": example_loss,
    "example_weight": example_weight,
    "example_correct": example_correct,
  }


def jit_train_step(
  *,
  module: FlaxEncoderDecoderModule,
  optimizer: Optimizer,
  config: StepConfig,
  mesh: Mesh,
  rules: sharding.Rules,
  shardings: TrainState,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """`train_step` compiled for a mesh; the state that it is given is donated.

  `shardings` are those of the state. Call it inside `jax.set_mesh(mesh)`.
  """

  def step(state, batch):
    _require_mesh(mesh)
    return train_step(
      state, batch, module=module, optimizer=optimizer, config=config
    )

  return jax.jit(
    step,
    in_shardings=(shardings, batch_sharding(mesh, rules)),
    out_shardings=(shardings, replicated(mesh)),
    donate_argnums=0,
  )


def jit_eval_step(
  *,
  module: FlaxEncoderDecoderModule,
  mesh: Mesh,
  rules: sharding.Rules,
  shardings: TrainState,
  loss_chunks: int = 1,
) -> Callable[[Params, Batch], dict[str, Array]]:
  """`eval_step` compiled for a mesh; every process can read what it gives."""

  def step(params, batch):
    _require_mesh(mesh)
    return eval_step(params, batch, module=module, loss_chunks=loss_chunks)

  return jax.jit(
    step,
    in_shardings=(shardings.params, batch_sharding(mesh, rules)),
    out_shardings=replicated(mesh),
  )


def _require_mesh(mesh: Mesh) -> None:
  # Without it every constraint on an activation is silently the identity.
  if jax.sharding.get_abstract_mesh() != mesh.abstract_mesh:
    raise ValueError(
      f"the step is compiled for {mesh}; call it inside `jax.set_mesh(mesh)`"
    )
