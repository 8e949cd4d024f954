"""FlaxEncoderDecoderModel: loads, composes, saves and uploads pairs."""

import dataclasses
import functools
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from transformers import EncoderDecoderConfig, PretrainedConfig

from encdec.hub import configs
from encdec.hub.card import Card
from encdec.hub.facade.resize import ResizableModel
from encdec.hub.facade.side_arguments import read_side, route
from encdec.hub.files.repo import Origin
from encdec.hub.saved_pair import read_pair
from encdec.hub.saving import push_folder, save_folder, save_part
from encdec.hub.weights.conversion import Checkpoint, load_lazily

_Path = str | os.PathLike[str]
_PARAM_DTYPES = ("float32", "bfloat16", "float16")


class FlaxEncoderDecoderModel(ResizableModel):
  """An encoder-decoder of two Hub models, with transformers' method names.

  Arguments stand in the order of the class of transformers 4.57; their
  defaults mean what they mean in PyTorch transformers 5.
  """

  @classmethod
  def from_pretrained(
    cls,
    pretrained_model_name_or_path: _Path,
    dtype: Any = jnp.float32,
    *,
    config: EncoderDecoderConfig | _Path | None = None,
    revision: str | None = None,
    subfolder: str = "",
    token: str | bool | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    output_loading_info: bool = False,
    ignore_mismatched_sizes: bool = False,
    initialise_missing: bool = False,
    param_dtype: Any = jnp.float32,
    from_pt: bool = False,
    seed: int = 0,
    _do_init: bool = True,
  ) -> Any:
    """Loads a saved pair from a folder or the Hub.

    Args:
      dtype: of the computation.
      param_dtype: of the parameters, whatever the file's; "auto": the file's.
      config: in place of the folder's config.json.
      ignore_mismatched_sizes, initialise_missing: draw tensors of another
        shape, or that the files lack, at random instead of raising.
      from_pt: accepted from old scripts.
      seed: of what is drawn.
      _do_init: False gives `(model, params)`, and the model holds none.

    Returns:
      The model; with `output_loading_info` also the report as a dict. The
      report stays at `model.loading_report`.

    Raises:
      HubError: the model cannot be reached or has no config.
      WeightFileError: the weights are damaged or do not fit the config.
    """
    del from_pt
    origin = Origin(
      os.fspath(pretrained_model_name_or_path),
      revision=revision,
      subfolder=subfolder,
      token=token,
      cache_dir=cache_dir,
      local_files_only=local_files_only,
    )
    if isinstance(config, PretrainedConfig):
      config = configs.composite_config(config.to_dict(), "config")
    elif config is not None:
      name = os.fspath(config)
      where = dataclasses.replace(origin, name=name, subfolder="")
      config = configs.composite_config(configs.read_config(where), where.name)
    pair = read_pair(origin, config)
    model = cls(pair.config, seed=seed, dtype=dtype, _do_init=False)
    model._set_generation_config(pair.generation, pair.derived)
    model._set_share(pair.share)
    model._set_param_dtype(param_dtype, pair.checkpoint)
    lazy, report = load_lazily(
      model.module,
      [pair.checkpoint],
      jax.random.key(seed),
      initialise_missing=initialise_missing,
      ignore_mismatched_sizes=ignore_mismatched_sizes,
    )
    model.loading_report = report
    result: list[Any] = [model]
    if _do_init:
      model._adopt(lazy)
    else:
      result.append(lazy.arrays())
    if output_loading_info:
      result.append(report.as_dict())
    return result[0] if len(result) == 1 else tuple(result)

  @classmethod
  def from_encoder_decoder_pretrained(
    cls,
    encoder_pretrained_model_name_or_path: _Path | None = None,
    decoder_pretrained_model_name_or_path: _Path | None = None,
    *,
    share: str = "none",
    **kwargs: Any,
  ) -> "FlaxEncoderDecoderModel":
    """Composes a pair of two pretrained models; cross-attention is new.

    Args:
      share: what the sides share: "none", "embeddings" (of the tokens, and
        with them a tied head) or "all" (see `encdec.config.Share`).
      **kwargs: with `encoder_` or `decoder_` in front, that side's: `model` (a
        ready one), `config`, `revision`, `subfolder`, `token`, `cache_dir`,
        `local_files_only`, `layers` (the numbers of those of the checkpoint
        that are taken), `position_extension` ("repeat_last" or "interpolate":
        how a table of positions becomes as long as a greater
        `max_position_embeddings` says), `add_pooling_layer` (of the encoder;
        default: as its file), or a value of its config. Without, the pair's:
        `dtype`, `param_dtype`, `seed`, `initialise_missing`,
        `ignore_mismatched_sizes`, the options of reading files for both sides,
        and values of its config, such as `decoder_start_token_id`.

    Raises:
      TypeError: an option that neither exists nor is a value of the config.
      ValueError: an architecture that cannot take its side.
      HubError, WeightFileError: as `from_pretrained`.
    """
    of_encoder, of_decoder, own = route(kwargs)
    encoder = read_side(
      "encoder", encoder_pretrained_model_name_or_path, of_encoder
    )
    decoder = read_side(
      "decoder", decoder_pretrained_model_name_or_path, of_decoder
    )
    dtype = own.pop("dtype", jnp.float32)
    param_dtype = own.pop("param_dtype", jnp.float32)
    seed = own.pop("seed", 0)
    draws = {
      name: own.pop(name, False)
      for name in ("initialise_missing", "ignore_mismatched_sizes")
    }
    if own.pop("tie_encoder_decoder", False):
      share = "all"
    configs.check_pair_options(own)
    config = configs.compose_config(encoder.config, decoder.config, **own)
    of_pair = configs.encdec_config(config, share=share).share
    model = cls(config, seed=seed, dtype=dtype, _do_init=False)
    model._set_share(of_pair)
    model._set_param_dtype(param_dtype, encoder.checkpoint, decoder.checkpoint)
    lazy, model.loading_report = load_lazily(
      model.module,
      [encoder.checkpoint, decoder.checkpoint],
      jax.random.key(seed),
      **draws,
    )
    warning = model.loading_report.warning()
    if warning and not draws["initialise_missing"]:
      warnings.warn(warning, stacklevel=2)
    model._adopt(lazy)
    return model

  def _set_param_dtype(self, asked: Any, *checkpoints: Checkpoint) -> None:
    """Sets the dtype of the parameters, before there are any."""
    if asked == "auto":
      asked = functools.reduce(jnp.promote_types, map(_dtype_of, checkpoints))
    dtype = jnp.dtype(asked)
    if dtype.name not in _PARAM_DTYPES:
      raise ValueError(
        f"param_dtype={asked!r} must be one of {', '.join(_PARAM_DTYPES)}, or "
        "'auto'"
      )
    self._module = self._module.clone(param_dtype=dtype)

  def save_pretrained(
    self,
    save_directory: _Path,
    params: Mapping[str, Any] | None = None,
    push_to_hub: bool = False,
    max_shard_size: int | str = "10GB",
    token: str | bool | None = None,
    *,
    part: str | None = None,
    card: Card | None = None,
  ) -> None:
    """Writes a folder that PyTorch transformers and this class load.

    Args:
      push_to_hub: also uploads it, under the folder's name.
      max_shard_size: bytes of a file, or as "10GB".
      part: "encoder" or "decoder" writes that side as a model of its own; with
        the decoder goes the projection between the widths, where there is one.
      card: what the model card says beyond the config.
    """
    folder = Path(save_directory)
    if folder.is_file():
      raise ValueError(
        f"save_directory={str(folder)!r} is a file; name a folder"
      )
    if part is not None and card is not None:
      raise ValueError(
        f"card= describes a pair; leave it out with part={part!r}"
      )
    unread = self._unread() if params is None else None
    tree = self._params_or(params) if unread is None else self.params_shape_tree
    files: Any = {"max_shard_size": max_shard_size, "unread": unread}
    if part is not None:
      save_part(folder, tree, self.config, part, **files)
    else:
      save_folder(
        folder,
        tree,
        self.config,
        tokens=self.special_tokens,
        generation=self.generation_config.to_diff_dict(),
        card=card,
        **files,
      )
    if push_to_hub:
      push_folder(folder, folder.resolve().name, token=token)

  def _unread(self) -> Mapping[str, np.ndarray] | None:
    """The files' tensors, where they are the whole tree and were not read yet.

    A pair that is only converted needs no parameters.
    """
    lazy = self._lazy_params
    if lazy is None or lazy.fresh:
      return None
    lazy.check()
    return lazy.tensors

  def push_to_hub(
    self,
    repo_id: str,
    *,
    params: Mapping[str, Any] | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    commit_message: str = "Upload model",
    max_shard_size: int | str = "10GB",
    card: Card | None = None,
  ) -> str:
    """Uploads what `save_pretrained` writes; gives its address."""
    with tempfile.TemporaryDirectory() as folder:
      self.save_pretrained(
        folder, params, max_shard_size=max_shard_size, card=card
      )
      return push_folder(
        folder,
        repo_id,
        token=token,
        private=private,
        commit_message=commit_message,
      )


def _dtype_of(checkpoint: Checkpoint) -> Any:
  """The dtype of a file's first half-precision tensor; else float32."""
  dtypes = (tensor.dtype.name for tensor in checkpoint.tensors.values())
  halves = (name for name in dtypes if name in _PARAM_DTYPES[1:])
  return jnp.dtype(next(halves, "float32"))
