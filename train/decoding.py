"""From a batch of sources to texts, with the settings of `generation`."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from encdec.decoding_form import unstack
from encdec.generate import Generated, generate, start_prompt
from encdec.generation.options import Rules, SearchOptions
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
    self.start, self.end = start, tokens.end
    self.max_length = max_length(config)
    self.options = search_options(config, tokens.end, pad)
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
      options=self.options,
      prompt=start_prompt(batch["encoder_segments"].shape[0], self.start),
      cache_length=self.max_length - 1,
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
    if generated.scores is not None:
      return jax.device_get(self._gather(generated.scores))[:rows].tolist()
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
    kept = [int(i) for i in ids if int(i) not in self.end]
    return self.tokenizer.decode(kept)


def search_options(
  config: Config, end_tokens: tuple[int, ...], pad_token: int
) -> SearchOptions:
  """What `generation` asks for."""
  g = config.generation
  return SearchOptions(
    max_length=jnp.asarray(max_length(config), jnp.int32),
    pad_token=jnp.asarray(pad_token, jnp.int32),
    length_penalty=jnp.asarray(g.length_penalty, jnp.float32),
    rules=Rules(
      min_length=jnp.asarray(g.min_length, jnp.int32) if g.min_length else None,
      no_repeat_ngram_size=g.no_repeat_ngram_size,
    ),
    end_tokens=end_tokens,
    num_beams=g.num_beams,
    early_stopping=g.early_stopping,
  )


def max_length(config: Config) -> int:
  """Tokens of a generated text, the start token included."""
  return config.generation.max_length or config.data.max_target_length + 1


def rows_per_batch(config: Config) -> int:
  """Rows of a batch outside training."""
  return config.eval.batch_size or config.train.batch_size
