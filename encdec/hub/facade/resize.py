"""Resizes vocabularies and position tables, and the config with them."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float, Key
from transformers import EncoderDecoderConfig

from encdec.config import EncDecConfig, Role, Share
from encdec.hub.configs import encdec_config, set_vocab_size
from encdec.hub.facade.base import RandomKey, typed_key
from encdec.hub.facade.check_params import check_tree
from encdec.hub.facade.generate import GeneratingModel
from encdec.hub.weights.position_tables import PATH as POSITIONS
from encdec.hub.weights.position_tables import check_extension, extended
from encdec.hub.weights.tensor_map import VOCABULARY_AXIS
from encdec.special_tokens import HUB_NAMES, ROLES
from encdec.types import Params

INITS = ("mean", "normal")
# Further ids of a generation config, alone or nested.
_IDS = (
  "forced_bos_token_id",
  "forced_eos_token_id",
  "suppress_tokens",
  "begin_suppress_tokens",
  "bad_words_ids",
  "sequence_bias",
)


@dataclasses.dataclass(frozen=True)
class NewRows:
  """How the embeddings of new tokens are initialised.

  Attributes:
    init: "mean" is the mean of the rows that were there, in the head's bias
      too; "normal" is drawn around 0, and 0 in the head's bias.
    key, std: of "normal"; without `std` the side's config says it.
  """

  init: str
  key: Key[Array, ""] | None = None
  std: float | None = None

  def __post_init__(self):
    if self.init not in INITS:
      raise ValueError(f"init={self.init!r} must be one of {', '.join(INITS)}")
    if self.init == "normal" and self.key is None:
      raise ValueError(
        "init='normal' draws the new rows: pass key=jax.random.key(...)"
      )
    if self.init == "mean" and (self.key is not None or self.std is not None):
      raise ValueError("init='mean' draws nothing: leave key and init_std out")
    if self.std is not None and not self.std > 0:
      raise ValueError(f"init_std={self.std!r} must be above 0")

  def make(
    self, old: Float[Array, "V ..."], count: int, std: float, number: int
  ) -> Float[Array, "N ..."]:
    """`count` new rows to follow `old`; `number` is the leaf's."""
    shape = (count, *old.shape[1:])
    if self.key is None:
      mean = old.astype(jnp.float32).mean(axis=0)
      return jnp.broadcast_to(mean, shape).astype(old.dtype)
    key = jax.random.fold_in(self.key, number)
    return (std * jax.random.normal(key, shape)).astype(old.dtype)


def resize_vocabulary(
  params: Params, old: EncDecConfig, new: EncDecConfig, rows: NewRows
) -> Params:
  """The tree of `old` for `new`, which differs only in vocabulary sizes.

  Rows beyond a vocabulary are zero, as they were.
  """
  flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
  leaves = [(str(role), inner) for role in Role for inner in VOCABULARY_AXIS]
  for number, (side, inner) in enumerate(leaves):
    path, axis = f"{side}/{inner}", VOCABULARY_AXIS[inner]
    before, after = getattr(old, side), getattr(new, side)
    if path not in flat or before.vocab_size == after.vocab_size:
      continue
    leaf = jnp.moveaxis(jnp.asarray(flat[path]), axis, 0)
    remaining = leaf[: min(before.vocab_size, after.vocab_size)]
    # New entries of a bias are not drawn at random.
    std = 0.0 if inner == "head/bias" else rows.std or after.init_std
    added = rows.make(remaining, after.vocab_size - len(remaining), std, number)
    padding = getattr(new, f"{side}_vocab_rows") - after.vocab_size
    zeros = jnp.zeros((padding, *leaf.shape[1:]), leaf.dtype)
    leaf = jnp.concatenate([remaining, added, zeros])
    flat[path] = jnp.moveaxis(leaf, 0, axis)
  return traverse_util.unflatten_dict(flat, sep="/")


class ResizableModel(GeneratingModel):
  """A model whose vocabularies and position tables can be resized."""

  def resize_token_embeddings(
    self,
    new_num_tokens: int,
    *,
    side: str,
    init: str = "mean",
    init_std: float | None = None,
    key: RandomKey | None = None,
    params: Mapping[str, Any] | None = None,
  ) -> Params:
    """Resizes a side's vocabulary, and updates the config.

    New tokens follow the old ones; fewer keep the first. A tied head follows
    its table, an untied one and the head's bias are resized alike.

    Args:
      side: "encoder", "decoder", or "both", as sides that share their
        embeddings must be.
      init: of new rows: "mean" of the old ones, which is where PyTorch draws
        them, all but exactly; or "normal", around 0, as PyTorch's
        `mean_resizing=False`.
      init_std: the deviation of "normal"; default: the side's config's.
      key: of "normal".
      params: those to resize, in place of the model's own.

    Returns:
      The resized tree, which the model holds unless it was made with
      `_do_init=False`.

    Raises:
      ValueError: a special id or one of the generation config would lie
        outside the vocabulary, or an argument is wrong; nothing has changed.
    """
    drawn = None if key is None else typed_key(key)
    rows = NewRows(init, drawn, init_std)
    if type(new_num_tokens) is not int or new_num_tokens < 1:
      raise ValueError(
        f"new_num_tokens={new_num_tokens!r} must be a positive integer"
      )
    sides = self._sides("embeddings", side, Share.EMBEDDINGS)
    tree = self._params_or(params)
    check_tree(tree, self.params_shape_tree)
    self._check_ids(new_num_tokens, sides)
    config = copy.deepcopy(self._config)
    _set_sizes(config, sides, new_num_tokens)
    old = self._module.config
    new = _derived(config, old)
    tree = resize_vocabulary(tree, old, new, rows)
    _set_sizes(self._config, sides, new_num_tokens)
    self._become(new, tree)
    return tree

  def resize_position_embeddings(
    self,
    new_max_position_embeddings: int,
    *,
    side: str,
    extension: str | None = None,
    params: Mapping[str, Any] | None = None,
  ) -> Params:
    """Extends a side's position table, and updates the config.

    Args:
      new_max_position_embeddings: as the side's config counts, which is
        without reserved rows for BART, and with them for RoBERTa.
      side: as in `resize_token_embeddings`; sides share their positions where
        they share all.
      extension: what new rows of a learned table are: "repeat_last", equal to
        the last one; or "interpolate", the rows stretched over the length, all
        but those that RoBERTa and BART reserve. Computed positions need none.
      params: as in `resize_token_embeddings`.

    Returns:
      The resized tree, likewise.

    Raises:
      ValueError: it is shorter than before, or an argument is wrong; nothing
        has changed.
    """
    count = new_max_position_embeddings
    if type(count) is not int:
      raise ValueError(
        f"new_max_position_embeddings={count!r} must be an integer"
      )
    sides = self._sides("positions", side, Share.ALL)
    tree = self._params_or(params)
    check_tree(tree, self.params_shape_tree)
    config, old = copy.deepcopy(self._config), self._module.config
    for one in sides:
      getattr(config, one).update({"max_position_embeddings": count})
    new = _derived(config, old)
    flat: dict[str, Any] = traverse_util.flatten_dict(tree, sep="/")
    for one in sides:
      before, after = getattr(old, one), getattr(new, one)
      check_extension("extension", extension, before, after)
      path = f"{one}/{POSITIONS}"
      if path in flat and extension is not None:
        leaf, offset = flat[path], after.position_offset
        rows = after.max_positions + offset
        table = extended(np.asarray(leaf), rows, offset, extension)
        flat[path] = jnp.asarray(table, leaf.dtype)
    tree = traverse_util.unflatten_dict(flat, sep="/")
    for one in sides:
      getattr(self._config, one).update({"max_position_embeddings": count})
    self._become(new, tree)
    return tree

  def _sides(self, what: str, side: str, least: Share) -> tuple[str, ...]:
    """The sides that `side` names; refuses one of two that share a table."""
    if side not in ("encoder", "decoder", "both"):
      raise ValueError(f"side={side!r} must be encoder, decoder or both")
    share = self._module.config.share
    if side != "both" and share in (least, Share.ALL):
      raise ValueError(
        f"side={side!r}: the sides share their {what} "
        f"(share={str(share)!r}); pass side='both'"
      )
    return ("encoder", "decoder") if side == "both" else (side,)

  def _become(self, config: EncDecConfig, tree: Params) -> None:
    """Adopts a config of other shapes and the parameters that fit it."""
    self._module = self._module.clone(config=config)
    self.__dict__.pop("params_shape_tree", None)
    self._decoding = None
    if self._has_params:
      self._params, self._lazy_params = tree, None

  def _check_ids(self, size: int, sides: tuple[str, ...]) -> None:
    """Raises ValueError if an id in use would lie outside the vocabulary."""
    ids: list[tuple[str, Any]] = []
    for side in sides:
      name = f"model.config.{side}.pad_token_id"
      pad = getattr(getattr(self._config, side), "pad_token_id", None)
      ids.append((name, pad))
    if "decoder" in sides:
      tokens = self.special_tokens
      for role in ROLES:
        where = tokens.where.get(role, "")
        name = f"model.config.{HUB_NAMES[role]} (now from {where})"
        ids.append((name, getattr(tokens, role)))
      for name in _IDS:
        value = getattr(self.generation_config, name, None)
        ids.append((f"model.generation_config.{name}", value))
    for name, value in ids:
      for token in _flat_ids(value):
        if token >= size:
          raise ValueError(
            f"the id {token} lies outside a vocabulary of {size} tokens; first "
            f"set {name} to another"
          )


def _flat_ids(value: Any) -> Iterator[int]:
  if isinstance(value, int):
    yield value
  elif isinstance(value, Mapping | list | tuple):
    for one in value:
      yield from _flat_ids(one)


def _set_sizes(
  config: EncoderDecoderConfig, sides: tuple[str, ...], size: int
) -> None:
  for side in sides:
    set_vocab_size(getattr(config, side), size)


def _derived(config: EncoderDecoderConfig, old: EncDecConfig) -> EncDecConfig:
  return encdec_config(
    config, share=str(old.share), vocab_multiple=old.vocab_multiple
  )
