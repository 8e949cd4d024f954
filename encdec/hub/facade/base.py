"""ModelBase: config, module, parameters and dtypes of the facade's model."""

import copy
import functools
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Key, UInt32
from transformers import (
  EncoderDecoderConfig,
  GenerationConfig,
  PretrainedConfig,
)

from encdec import platform
from encdec.config import Share
from encdec.hub import configs
from encdec.hub.facade import jitted
from encdec.hub.facade.check_params import cast, check_tree, plain_tree
from encdec.hub.facade.supported_options import SUPPORTED, Request, request
from encdec.hub.weights.conversion import leaf_shapes
from encdec.hub.weights.lazy_params import LazyParams
from encdec.hub.weights.loading_report import LoadingReport
from encdec.model import FlaxEncoderDecoderModule, init_params
from encdec.special_tokens import (
  HUB_NAMES,
  ROLES,
  SpecialTokens,
  TokenSource,
  resolve_special_tokens,
)
from encdec.types import Params

RandomKey = Key[Array, ""] | UInt32[Array, "2"]
Shape = tuple[int, ...]
_init = jax.jit(init_params, static_argnums=0)
# One for all models: a model with its own could not be copied or pickled.
_READING = threading.Lock()


class ModelBase:
  """Config, module and parameters, and how parameters are made and cast.

  Args:
    config: of the pair.
    input_shape: accepted from old scripts; no parameter depends on it.
    seed: of the parameters.
    dtype: of the computation; parameters are made in float32.
    _do_init: False allocates nothing: parameters are passed to every call.
  """

  config_class = EncoderDecoderConfig
  base_model_prefix = "encoder_decoder"
  module_class = FlaxEncoderDecoderModule
  main_input_name = "input_ids"
  framework = "flax"

  def __init__(
    self,
    config: PretrainedConfig,
    input_shape: tuple[Shape, Shape] = ((1, 1), (1, 1)),
    seed: int = 0,
    dtype: Any = jnp.float32,
    _do_init: bool = True,
  ):
    if not isinstance(config, EncoderDecoderConfig):
      raise ValueError(
        f"config is a {type(config).__name__}; pass an EncoderDecoderConfig, "
        "such as EncoderDecoderConfig.from_encoder_decoder_configs makes"
      )
    self._config = config
    self._module = FlaxEncoderDecoderModule(
      configs.encdec_config(config, share=configs.tied_by(config)),
      dtype=jnp.dtype(dtype),
      attention_dropout="weights",
    )
    self.key = jax.random.key(seed)
    self.dtype = dtype
    self.input_shape = input_shape
    self.generation_config = GenerationConfig.from_model_config(config)
    self.loading_report: LoadingReport | None = None
    self._loaded_ids = self._config_ids()
    self._loaded_options = self._config_options()
    # Ids that the generation config has only from `config`.
    self._derived_ids = _ids_of(self.generation_config)
    self._has_params = _do_init
    self._params: Params | None = None
    # In place of `_params` until they are first asked for.
    self._lazy_params: LazyParams | None = None
    self._decoding: tuple[Any, Params] | None = None
    # The last function of each code that `generate` was given.
    self._seen_processors: dict[Any, set[Any]] = {}
    if _do_init:
      self._set_params(_init(self._module, self.key))

  @property
  def config(self) -> EncoderDecoderConfig:
    return self._config

  @property
  def module(self) -> FlaxEncoderDecoderModule:
    return self._module

  def _set_share(self, share: Share) -> None:
    """Sets what the sides share, before there are any parameters."""
    config = configs.encdec_config(self._config, share=share)
    self._module = self._module.clone(config=config)
    configs.set_tied(self._config, share)

  @functools.cached_property
  def params_shape_tree(self) -> Params:
    """The tree as ShapeDtypeStructs."""
    return traverse_util.unflatten_dict(
      leaf_shapes(self._module.config, self._module.param_dtype), sep="/"
    )

  @property
  def required_params(self) -> set[tuple[str, ...]]:
    return set(traverse_util.flatten_dict(self.params_shape_tree))

  @property
  def params(self) -> Params:
    """The stored tree; a saved pair's is read when it is first asked for."""
    if self._lazy_params is not None:
      with _READING:
        # Another thread may have been here first.
        if self._lazy_params is not None:
          self._set_params(self._lazy_params.arrays())
    if self._params is None:
      raise ValueError(
        "the model was made with _do_init=False and holds no params: keep them "
        "yourself and pass params= to each call"
      )
    return self._params

  @params.setter
  def params(self, params: Mapping[str, Any]) -> None:
    if not self._has_params:
      raise ValueError(
        "the model was made with _do_init=False: keep the params yourself and "
        "pass params= to each call"
      )
    params = plain_tree(params)
    check_tree(params, self.params_shape_tree)
    # Arrays of numpy could change in place, unseen by the decoding form.
    self._set_params(jax.tree.map(jnp.asarray, params))

  def _set_params(self, params: Params) -> None:
    """Takes parameters, and computes for the devices that hold them."""
    self._params, self._lazy_params = params, None
    held_by = platform.of_arrays(params)
    if held_by != self._module.platform:
      self._module = self._module.clone(platform=held_by)

  def _adopt(self, lazy: LazyParams) -> None:
    """Takes parameters whose shapes are known, to be read when needed."""
    self._has_params, self._lazy_params = True, lazy

  def _params_or(self, params: Mapping[str, Any] | None) -> Params:
    return self.params if params is None else plain_tree(params)

  def _flags(
    self, attentions: bool | None, hidden_states: bool | None
  ) -> tuple[bool, bool]:
    if attentions is None:
      attentions = self.config.output_attentions
    if hidden_states is None:
      hidden_states = self.config.output_hidden_states
    return bool(attentions), bool(hidden_states)

  def _as_dict(self, return_dict: bool | None) -> bool:
    if return_dict is None:
      return bool(self.config.return_dict)
    return return_dict

  def _dropout_key(
    self, train: bool, rng: RandomKey | None, tree: Params
  ) -> Key[Array, ""] | None:
    if not train:
      return None
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(tree)}
    if jnp.dtype(jnp.float16) in dtypes | {self.module.dtype}:
      raise ValueError(
        "dtype=float16 is for inference: its gradients underflow; train with "
        "bfloat16 or float32, in computation and parameters"
      )
    if rng is None:
      raise ValueError(
        "train=True draws dropout: pass dropout_rng=jax.random.key(...), a new "
        "one each step"
      )
    return typed_key(rng)

  def init_weights(
    self,
    rng: RandomKey,
    input_shape: tuple[Shape, Shape] | None = None,
    params: Mapping[str, Any] | None = None,
  ) -> Params:
    """Random parameters; with `params`, only those that are missing there."""
    if input_shape is not None and input_shape[0][0] != input_shape[1][0]:
      raise ValueError(
        f"input_shape={input_shape}: both sides need the same batch size"
      )
    drawn = _init(self._module, typed_key(rng))
    if params is None:
      return drawn
    given = traverse_util.flatten_dict(plain_tree(params))
    flat = traverse_util.flatten_dict(drawn) | given
    return traverse_util.unflatten_dict(flat)

  def enable_gradient_checkpointing(self) -> None:
    """Recomputes each layer in the backward pass instead of storing it."""
    self._module = self._module.clone(remat="full")

  def to_bf16(self, params: Params, mask: Any = None) -> Params:
    """Floating parameters as bfloat16, where `mask` (a like tree) is True."""
    return cast(params, jnp.bfloat16, mask)

  def to_fp16(self, params: Params, mask: Any = None) -> Params:
    """As `to_bf16`, to float16: for inference, refused with train=True."""
    return cast(params, jnp.float16, mask)

  def to_fp32(self, params: Params, mask: Any = None) -> Params:
    """As `to_bf16`, to float32."""
    return cast(params, jnp.float32, mask)

  def _decoding_params(self, tree: Params) -> Params:
    """The decoding form, cached until a leaf is another array."""
    leaves = jax.tree.leaves(tree)
    if self._decoding is not None:
      held, form = self._decoding
      if len(held) == len(leaves) and all(
        reference() is leaf
        for reference, leaf in zip(held, leaves, strict=True)
      ):
        return form
    form = jitted.decoding_form(self.module, tree)
    if all(isinstance(leaf, jax.Array) for leaf in leaves) and (
      not jitted.is_traced(form)
    ):
      self._decoding = ([weakref.ref(leaf) for leaf in leaves], form)
    return form

  @classmethod
  def can_generate(cls) -> bool:
    return True

  @property
  def special_tokens(self) -> SpecialTokens:
    """The ids that calls use, and where each comes from."""
    return self._tokens(request(self.generation_config, None, {}), need=())

  def _tokens(
    self, asked: Request, need: tuple[str, ...] = ROLES
  ) -> SpecialTokens:
    changed = {
      name: value
      for name, value in self._config_ids().items()
      if value != self._loaded_ids[name]
    }
    sources = [
      asked.call,
      TokenSource(
        "model.config", **{r: changed.get(n) for r, n in HUB_NAMES.items()}
      ),
      TokenSource(
        asked.file.where,
        **{
          role: value
          for role, name in HUB_NAMES.items()
          if (value := getattr(asked.file, role)) != self._derived_ids[name]
        },
      ),
      *configs.token_sources(self.config),
    ]
    bos = configs.decoder_bos(self.config)
    if asked.bos is not None and asked.bos != self._derived_ids["bos_token_id"]:
      bos = ("the generation config", asked.bos)
    setting = {r: f"model.config.{n}" for r, n in HUB_NAMES.items()}
    return resolve_special_tokens(sources, bos=bos, need=need, setting=setting)

  def _config_options(self) -> dict[str, Any]:
    return {
      name: copy.deepcopy(value)
      for name in SUPPORTED - {*HUB_NAMES.values(), "output_attentions"}
      if (value := getattr(self._config, name, None)) is not None
    }

  def _check_config_options(self) -> None:
    """Refuses options set on `config` after loading, as nothing reads them.

    Raises:
      ValueError: there is one.
    """
    for name, value in self._config_options().items():
      if value != self._loaded_options.get(name):
        raise ValueError(
          f"model.config.{name}={value!r} was set after loading and is not "
          f"read: set model.generation_config.{name}, or pass {name}= to "
          "generate()"
        )

  def _config_ids(self) -> dict[str, Any]:
    return {n: getattr(self._config, n, None) for n in HUB_NAMES.values()}

  def _set_generation_config(
    self, config: GenerationConfig, derived: bool
  ) -> None:
    """Takes a generation config; `derived`: it was made from `config`."""
    self.generation_config = config
    self._derived_ids = _ids_of(config if derived else GenerationConfig())


def _ids_of(config: GenerationConfig) -> dict[str, Any]:
  names = (*HUB_NAMES.values(), "bos_token_id")
  return {name: getattr(config, name, None) for name in names}


def typed_key(rng: RandomKey) -> Key[Array, ""]:
  """A typed key of `jax.random.key`, or an old raw one."""
  if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
    return rng
  return jax.random.wrap_key_data(rng)
