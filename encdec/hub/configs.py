"""Hub configs: read, composed, and converted to the module's config."""

from collections.abc import Mapping
from typing import Any, cast

from huggingface_hub import errors
from transformers import (
  CONFIG_MAPPING,
  EncoderDecoderConfig,
  GenerationConfig,
  PretrainedConfig,
)

from encdec.archs import ARCHS
from encdec.config import EncDecConfig, Role, Share, StackConfig
from encdec.hub.error_text import fault, quoted
from encdec.hub.files.repo import HubError, Origin
from encdec.hub.presets import TOKEN_IDS, near_preset, preset
from encdec.special_tokens import HUB_NAMES, TokenSource, token_source

COMPOSITE_TYPES = ("encoder-decoder", "encoder_decoder")
# Names of dropout rates in the Hub configs of the architectures.
_DROPOUTS = (
  "hidden_dropout_prob",
  "attention_probs_dropout_prob",
  "embd_pdrop",
  "resid_pdrop",
  "attn_pdrop",
  "dropout",
  "attention_dropout",
  "activation_dropout",
)
# Raised where a value has another type than its readers expect.
_UNFIT = (
  errors.StrictDataclassError,
  ArithmeticError,
  AttributeError,
  LookupError,
  TypeError,
  ValueError,
)
# The longest error message of an architecture that is shown as it is.
_MOST = 500


def load_side_config(name: str, **where: Any) -> PretrainedConfig:
  """The Hub config of one model.

  Args:
    name: a preset ("bert:tiny"), a folder, or a Hub id.
    **where: the other fields of `encdec.hub.files.repo.Origin`.

  Raises:
    HubError: it cannot be reached or holds no config.
    ValueError: its architecture is not known, or the preset is not.
  """
  arch, _, size = name.partition(":")
  if size and arch in ARCHS:
    return side_config(preset(arch, size))
  origin = Origin(name, **where)
  try:
    values = read_config(origin)
  except HubError as error:
    near = "" if origin.folder else near_preset(name)
    if not near:
      raise
    raise HubError(
      f"{error}; did you mean the preset {near!r}, which has no weights?"
    ) from error
  return side_config(values, name)


def read_config(origin: Origin) -> dict[str, Any]:
  """config.json as it is."""
  values = origin.json("config.json")
  if values is None:
    raise HubError(
      f"{origin.name} holds no config.json; pass a model's folder or Hub id"
    )
  return values


def side_config(values: Mapping[str, Any], name: str = "") -> PretrainedConfig:
  """A side's config out of a dict, with every default filled in.

  Raises:
    ValueError: the architecture is not one of ARCHS.
  """
  kind = values.get("model_type")
  if not isinstance(kind, str) or kind not in ARCHS:
    hint = (
      "load a pair with from_pretrained"
      if kind in COMPOSITE_TYPES
      else f"known are {', '.join(ARCHS)}"
    )
    raise ValueError(
      f"{name or 'config'}: model_type {quoted(kind)} is no side; {hint}"
    )
  return _made(CONFIG_MAPPING[kind], values, name or "config")


def _made(kind: Any, values: Mapping[str, Any], name: str) -> Any:
  """A config of transformers; its errors are cut: they print whole values."""
  try:
    return kind.from_dict(dict(values))
  except _UNFIT as error:
    raise ValueError(
      f"{name}: no {kind.__name__} ({fault(error)}); correct that value"
    ) from error


def compose_config(
  encoder: PretrainedConfig, decoder: PretrainedConfig, **top: Any
) -> EncoderDecoderConfig:
  """The pair's config; `top` are its own fields, such as `pad_token_id`."""
  encoder_values = encoder.to_dict() | {
    "is_decoder": False,
    "add_cross_attention": False,
  }
  decoder_values = decoder.to_dict() | {
    "is_decoder": True,
    "add_cross_attention": True,
    # As PyTorch sets it when it takes a decoder out of a whole model.
    "is_encoder_decoder": False,
  }
  return EncoderDecoderConfig(
    encoder=encoder_values, decoder=decoder_values, **top
  )


def check_pair_options(options: Mapping[str, Any]) -> None:
  """Raises TypeError for a keyword that is no value of a pair's config."""
  known = EncoderDecoderConfig(
    encoder={"model_type": "bert"}, decoder={"model_type": "bert"}
  ).to_dict()
  for name, value in options.items():
    if name not in known and name not in HUB_NAMES.values():
      raise TypeError(
        f"{name}={value!r}: neither an option nor a value of the pair's "
        "config; with encoder_ or decoder_ in front it is that side's"
      )


def composite_config(
  values: Mapping[str, Any], name: str = "config"
) -> EncoderDecoderConfig:
  """A pair's config out of config.json's values, old files included.

  Raises:
    ValueError: it is no pair.
  """
  values = dict(values)
  if values.get("model_type") not in COMPOSITE_TYPES:
    raise ValueError(
      f"{name}: model_type {quoted(values.get('model_type'))} is no "
      "encoder-decoder; compose one with from_encoder_decoder_pretrained"
    )
  values["model_type"] = COMPOSITE_TYPES[0]
  for side in ("encoder", "decoder"):
    own = values.get(side)
    side_config(own if isinstance(own, dict) else {}, f"{name} {side}")
  return _made(EncoderDecoderConfig, values, name)


def sides_of(
  hub: EncoderDecoderConfig,
) -> tuple[PretrainedConfig, PretrainedConfig]:
  """The encoder's config and the decoder's."""
  return cast(Any, hub.encoder), cast(Any, hub.decoder)


def tied_by(hub: EncoderDecoderConfig) -> Share:
  """What the sides share, as `set_tied` wrote it into the config."""
  if getattr(hub, "tie_encoder_decoder", None):
    return Share.ALL
  return Share(getattr(hub, "share", None) or Share.NONE)


def set_tied(hub: EncoderDecoderConfig, share: Share) -> None:
  """Writes what the sides share into the config.

  `tie_encoder_decoder` is all or nothing: False, for sides that merely start
  equal must not be taken for shared ones; None beside a `share` of ours.
  """
  values = {Share.ALL: True, Share.EMBEDDINGS: None, Share.NONE: False}
  hub.tie_encoder_decoder = values[share]
  hub.__dict__.pop("share", None)
  if share == Share.EMBEDDINGS:
    hub.share = str(share)


def encdec_config(
  hub: EncoderDecoderConfig, *, share: str = "none", vocab_multiple: int = 1
) -> EncDecConfig:
  """The module's config of a pair's Hub config.

  Raises:
    ValueError: an architecture cannot take its side, or a value is wrong.
  """
  if share not in list(Share):
    raise ValueError(
      f"share={share!r} must be one of {', '.join(map(str, Share))}"
    )
  _check_roles(*sides_of(hub))
  encoder, decoder = (
    stack_config(side, role)
    for side, role in zip(sides_of(hub), Role, strict=True)
  )
  cross = getattr(hub.decoder, "cross_attention_hidden_size", None)
  if cross is not None and not cross == encoder.width == decoder.width:
    raise ValueError(
      f"decoder: cross_attention_hidden_size={cross} must be the width of both "
      f"sides ({encoder.width} and {decoder.width}); remove it: states of "
      "another width are projected"
    )
  return EncDecConfig(encoder, decoder, Share(share), vocab_multiple)


def _check_roles(encoder: PretrainedConfig, decoder: PretrainedConfig) -> None:
  """Raises ValueError if PyTorch would build another pair than this."""
  for side, config, name, wanted in (
    ("encoder", encoder, "is_decoder", False),
    ("decoder", decoder, "is_decoder", True),
    ("decoder", decoder, "add_cross_attention", True),
  ):
    if bool(getattr(config, name, False)) is not wanted:
      raise ValueError(
        f"{side}: {name} is {not wanted} and must be {wanted}; compose the "
        "config with EncoderDecoderConfig.from_encoder_decoder_configs"
      )


def stack_config(config: PretrainedConfig, role: Role) -> StackConfig:
  """One side's config for the module, from a Hub config with its defaults."""
  arch = ARCHS.get(config.model_type)
  if arch is None:
    raise ValueError(
      f"{role}: model_type {quoted(config.model_type)} is not known; known are "
      f"{', '.join(ARCHS)}"
    )
  try:
    return arch.stack_config(config.to_dict(), role)
  except _UNFIT as error:
    # A value that no architecture expects, or one that is very long.
    message = str(error)
    if isinstance(error, ValueError) and len(message) <= _MOST:
      raise
    raise ValueError(
      f"{role} ({config.model_type}): {fault(error)}; correct its config"
    ) from error


def set_dropout(config: PretrainedConfig, rate: float) -> None:
  """Sets every dropout rate of a side."""
  config.update({name: rate for name in _DROPOUTS if hasattr(config, name)})


def set_init_std(config: PretrainedConfig, std: float) -> None:
  """Sets the standard deviation of a side's random weights."""
  name = "init_std" if hasattr(config, "init_std") else "initializer_range"
  config.update({name: std})


def set_pooler(config: PretrainedConfig, wanted: bool) -> None:
  """Sets whether an encoder, of an architecture with a pooler, has one.

  Under a name of ours: what PyTorch calls `add_pooling_layer` is an argument
  of its classes, which a config with a value of that name would swallow.
  """
  config.__dict__.pop("has_pooler", None)
  if not wanted:
    config.update({"has_pooler": False})


def set_vocab_size(config: PretrainedConfig, size: int) -> None:
  """Sets the vocabulary size of a side."""
  names = ("vocab_size", "decoder_vocab_size")  # Marian has both.
  config.update({name: size for name in names if hasattr(config, name)})


def generation_config_of(name: str, **where: Any) -> dict[str, Any] | None:
  """generation_config.json of a folder or Hub id, None where it has none."""
  return Origin(name, **where).json("generation_config.json")


def token_sources(
  hub: EncoderDecoderConfig, generation: Mapping[str, Any] | None = None
) -> tuple[TokenSource, ...]:
  """What a model's files say about special ids, in order of precedence."""
  sources = [
    token_source("config.json", hub.to_dict()),
    token_source("the decoder's config", sides_of(hub)[1].to_dict()),
  ]
  if generation is not None:
    sources.insert(0, token_source("generation_config.json", generation))
  return tuple(sources)


def decoder_bos(hub: EncoderDecoderConfig) -> tuple[str, int] | None:
  """The start token if no other is set: the decoder's bos_token_id."""
  # Pegasus' config has none.
  bos = getattr(sides_of(hub)[1], "bos_token_id", None)
  return None if bos is None else ("the decoder's config", bos)


def _ids_of(config: PretrainedConfig) -> dict[str, Any]:
  names = {*TOKEN_IDS, *HUB_NAMES.values()}
  return {n: v for n in names if (v := getattr(config, n, None)) is not None}


def read_generation_config(
  origin: Origin, hub: EncoderDecoderConfig
) -> tuple[GenerationConfig, bool]:
  """generation_config.json, or what old files keep in config.json.

  Returns:
    The config, and whether it was derived from config.json.
  """
  values = origin.json("generation_config.json")
  if values is not None:
    where = f"{origin.name}: generation_config.json"
    return _made(GenerationConfig, values, where), False
  # A config object has dropped its options of generation already. Old files
  # keep them at the top or in the decoder's part, which PyTorch reads for what
  # is missing at the top.
  raw = origin.json("config.json") or {}
  merged = _ids_of(hub) | raw
  part = raw.get("decoder")
  of_decoder = _ids_of(sides_of(hub)[1])
  merged["decoder"] = of_decoder | (part if isinstance(part, dict) else {})
  return GenerationConfig.from_model_config(merged), True
