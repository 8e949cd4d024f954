"""From a batch of sources to texts, with the settings of `generation`."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from encdec.generate import Generated, SearchTokens, generate
from encdec.model import unstack
from encdec.sharing import expand
from encdec.types import Params
from train.config import Config
from train.initialize import Task
from train.mesh import replicated
from train.step import eval_step

Batch = Mapping[str, Array]


class TextGenerator:
  """Generates texts on a mesh; every process gets them all.

  Use it inside `jax.set_mesh(mesh)`.
  """

  def __init__(self, task: Task, config: Config, mesh: Mesh):
    tokens = task.tokens
    start, pad = task.batch_tokens.start, task.batch_tokens.target_pad
    self.module = task.module
    self.tokenizer = task.target_tokenizer
    self.tokens = SearchTokens(start, tokens.end, pad)
    self.max_length = max_length(config)
    self.min_length = config.generation.min_length
    self.loss_chunks = config.train.loss_chunks
    self.length_penalty = config.generation.length_penalty
    self.prepare = jax.jit(self._prepare)
    self._score = jax.jit(self._log_probability, out_shardings=replicated(mesh))
    self._gather = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))

  def _prepare(self, params: Params) -> Params:
    """The decoding form of stored parameters, once a version of them."""
    return unstack(expand(params, self.module.config), self.module.dtype)

  def generate(self, decoding_params: Params, batch: Batch) -> Generated:
    """Tokens of each row, on the devices."""
    return generate(
      self.module,
      decoding_params,
      batch["encoder_tokens"],
      batch["encoder_segments"],
      batch["encoder_positions"],
      tokens=self.tokens,
      cache_length=self.max_length,
      max_length=self.max_length,
      min_length=self.min_length,
    )

  def texts(self, generated: Generated, rows: int) -> list[str]:
    """Texts of the first `rows`, without start and end."""
    host = jax.device_get(self._gather(generated))
    return [
      self._text(ids[1:length])
      for ids, length in zip(host.tokens[:rows], host.lengths, strict=False)
    ]

  def scores(
    self, params: Params, batch: Batch, generated: Generated, rows: int
  ) -> list[float]:
    """Log-probabilities of the first `rows`, over length^length_penalty.

    Args:
      params: stored parameters.
    """
    out = jax.device_get(self._score(params, dict(batch), generated))
    scores = -out["example_loss"] / out["example_weight"] ** self.length_penalty
    return [float(score) for score in scores[:rows]]

  def _log_probability(
    self, params: Params, batch: Batch, generated: Generated
  ):
    inputs, targets = generated.tokens[:, :-1], generated.tokens[:, 1:]
    index = jnp.arange(targets.shape[1], dtype=jnp.int32)[None]
    # `lengths` counts the start token, which is no target.
    segments = (index < generated.lengths[:, None] - 1).astype(jnp.int32)
    scored = {
      **batch,
      "decoder_inputs": inputs,
      "decoder_targets": targets,
      "decoder_segments": segments,
      "decoder_positions": index * segments,
      "decoder_weights": segments.astype(jnp.float32),
    }
    return eval_step(
      params, scored, module=self.module, loss_chunks=self.loss_chunks
    )

  def _text(self, ids: np.ndarray) -> str:
    kept = [int(i) for i in ids if int(i) not in self.tokens.end]
    return self.tokenizer.decode(kept)


def max_length(config: Config) -> int:
  """Tokens of a generated text, the start token included."""
  return config.generation.max_length or config.data.max_target_length + 1


def rows_per_batch(config: Config) -> int:
  """Rows of a batch outside training."""
  return config.eval.batch_size or config.train.batch_size
