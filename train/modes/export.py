"""Export of a trained model to a Hub folder: what --mode=export does."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax.experimental import multihost_utils

from data.io import atomic_write
from encdec import hub
from encdec.adapters import merge
from encdec.types import Params
from train import validate
from train.cli import paths
from train.config import Config
from train.errors import Refusal, refusing
from train.modes import card_names
from train.processes import agreement
from train.setup import base_weights, trained
from train.setup.task import Task
from train.setup.trained import Trained

# What a reader would ask of how the model was trained.
RECIPE = (
  "model.pair",
  "model.encoder",
  "model.encoder_init",
  "model.decoder",
  "model.decoder_init",
  "model.share",
  "model.dropout",
  "model.dtype",
  "data.max_source_length",
  "data.max_target_length",
  "train.steps",
  "train.batch_size",
  "train.label_smoothing",
  "optim.name",
  "optim.lr",
  "optim.schedule",
  "optim.warmup_steps",
  "optim.weight_decay",
  "optim.clip_norm",
  "seed",
)
# And of what is set.
_OPTIONS = (
  "model.decoder_embeddings_init",
  "data.source_types",
  "train.z_loss",
  "train.r_drop",
  "optim.groups",
  "optim.ema_decay",
)
# And of adapters, where there are any.
_LORA_RECIPE = (
  "model.lora_rank",
  "model.lora_alpha",
  "model.lora_targets",
  "model.lora_dora",
)
# The folder of the untrained pair, beside adapters.
_BASE = "base"
# What makes another base of a saved pair.
_CHANGES = (
  "grow_vocabulary",
  "encoder_positions",
  "decoder_positions",
  "share",
)
# Of a generation_config.json: ids, which are resolved, and bookkeeping.
_RESOLVED = {
  "_from_model_config",
  "bos_token_id",
  "decoder_start_token_id",
  "eos_token_id",
  "pad_token_id",
  "transformers_version",
}


def run(
  config: Config,
  folder: str,
  *,
  step: int = -1,
  output: str,
  push_to_hub: str = "",
  adapters: bool = False,
) -> None:
  """Writes what PyTorch's `EncoderDecoderModel.from_pretrained` loads.

  Adapters are merged, or written alone for PEFT's `PeftModel.from_pretrained`;
  then the untrained pair stands in base/, unless it is that of `model.pair`.

  The source tokenizer stands at the root, the target's in target_tokenizer/
  where it differs.

  Args:
    output: the folder; made where it is missing.
    push_to_hub: also upload it to this id.
    adapters: whether to write them alone.

  Raises:
    Refusal: there is no such checkpoint, `output` is missing or in use, or the
      run has no adapters.
  """
  with refusing():
    path = _check_output(output, adapters)
    if adapters and not config.model.lora_rank:
      raise Refusal(
        "--adapters: model.lora_rank = 0, so that the run has none; export it "
        "without"
      )
  this = trained.load(config, folder, step)
  lora = this.task.module.config.lora
  base = config.model.pair if _is_of_a_pair(this) else str(path / _BASE)
  with jax.set_mesh(this.mesh):
    params = this.params if adapters else _merged(this)
    params, untrained = _addressable(params), None
    if adapters and base != config.model.pair:
      untrained = base_weights.untrained(this.params, config, this.task.module)
      untrained = _addressable(untrained)

  def write() -> None:
    if adapters and lora is not None:
      with refusing():
        hub.save_adapters(path, params, this.task.hub_config, lora, base=base)
      if untrained is not None:
        _write_pair(path / _BASE, untrained, config, this, _base_card(this))
    else:
      _write_pair(path, params, config, this, _card(this))
    print(f"exported step {this.step} to {path}")
    if push_to_hub:
      with refusing():
        print(f"pushed to {hub.push_folder(path, push_to_hub)}")

  def write_named() -> None:
    with paths.making(f"--output={output}"):
      path.mkdir(parents=True, exist_ok=True)
    with atomic_write.naming(path):
      write()

  agreement.on_chief("the export", write_named)


def _is_of_a_pair(this: Trained) -> bool:
  """Whether the base of adapters is a saved pair, with nothing made here."""
  flat = this.trained_with
  changed = any(flat.get(f"model.{key}") for key in _CHANGES)
  return bool(flat.get("model.pair")) and not changed


def _write_pair(
  path: Path, params: Params, config: Config, this: Trained, card: hub.Card
) -> None:
  source, target = this.task.source_tokenizer, this.task.target_tokenizer
  hub.save_folder(
    path,
    params,
    this.task.hub_config,
    tokens=this.task.tokens,
    generation=generation_settings(config, this.task),
    source_tokenizer=source,
    target_tokenizer=None if target.saved == source.saved else target,
    card=card,
  )


def _merged(this: Trained) -> Params:
  """The parameters without adapters, which their kernels have taken in."""
  lora = this.task.module.config.lora
  if lora is None:
    return this.params
  return jax.jit(lambda params: merge(params, lora))(this.params)


def _addressable(params: Params) -> Params:
  """Parameters that this process can read whole; all processes call it.

  Several processes hold a copy each in host memory, gathered leaf by leaf.
  """
  if jax.process_count() == 1:
    return params
  return jax.tree.map(
    lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), params
  )


def generation_settings(config: Config, task: Task) -> Mapping[str, Any]:
  """What the run generated with, and nothing that it did not do.

  A decoder's generation_config.json may ask for sampling, which would make
  another model of an export.
  """
  settings = task.generation_settings(config)
  theirs = set(task.generation or ()) - _RESOLVED
  left_out = sorted(theirs - set(settings.options))
  if left_out and not config.model.pair:
    logging.warning(
      "left out of the decoder's generation_config.json, since the run did not "
      "use it: %s",
      ", ".join(left_out),
    )
  if settings.sampling:
    logging.warning(
      "left out of the generation_config.json of model.pair, since the run "
      "searched and did not sample: %s",
      ", ".join(settings.sampling),
    )
  for key, default in (("scoring", "pytorch"), ("block_trigrams", False)):
    if (value := config.generation[key]) != default:
      logging.warning(
        "generation.%s=%r has no place in a generation_config.json: what reads "
        "the export must be told",
        key,
        value,
      )
  if config.data.source_types:
    logging.warning(
      "data.source_types=%r has no place in an export: give the encoder "
      "token_type_ids that alternate from sentence to sentence",
      config.data.source_types,
    )
  options = dict(settings.options)
  saved = task.generation if config.model.pair else None
  if saved and saved.get("use_cache") is False:
    options["use_cache"] = False
  unplaced = task.module.config.decoder.unplaced_token
  if unplaced is not None and task.tokens.start == unplaced:
    options["use_cache"] = False
    logging.warning(
      "the start token of the target is the decoder's padding id, which takes "
      "no position: the export says use_cache=False, since PyTorch's cache "
      "would place what follows one off"
    )
  return options


def _check_output(output: str, adapters: bool) -> Path:
  if not output:
    raise Refusal("--output is missing: pass a folder, --output=runs/name/hub")
  paths.check_path("output", output)
  path = Path(output)
  if path.exists() and not path.is_dir():
    raise Refusal(
      f"--output={output} is a file: an export is a folder; choose another"
    )
  names = [p.name for p in path.glob("*")] if path.exists() else []
  foreign = [n for n in names if not n.startswith(".") and hub.PARTIAL not in n]
  if foreign and not _is_export(path, adapters):
    what = "export of adapters" if adapters else "export"
    raise Refusal(
      f"--output={output} holds something that is no {what}: choose an empty "
      "folder, or that of an earlier export"
    )
  return path


def _is_export(path: Path, adapters: bool) -> bool:
  name, key, value = "config.json", "model_type", "encoder-decoder"
  if adapters:
    name, key, value = "adapter_config.json", "peft_type", "LORA"
  try:
    config = json.loads((path / name).read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return False
  return isinstance(config, dict) and config.get(key) == value


def _card(this: Trained) -> hub.Card:
  # Not the command's own config, of which the model alone is checked.
  flat = this.trained_with
  return hub.Card(
    title=this.folder.resolve().name,
    base_models=_base_models(flat),
    datasets=card_names.datasets(flat["data.train"]),
    recipe={"step": this.step} | _recipe(this),
    # Those that were saved with these weights: metrics.jsonl may have been
    # changed, or cut, since.
    metrics={
      name: value
      for name, value in this.metrics.items()
      if name.startswith("eval/")
    },
  )


def _base_card(this: Trained) -> hub.Card:
  return hub.Card(
    title=f"{this.folder.resolve().name}, untrained",
    base_models=_base_models(this.trained_with),
    notes="The pair that the adapters beside this folder were trained over.",
  )


def _recipe(this: Trained) -> dict[str, Any]:
  """How it was trained, without the sides that a saved pair replaced."""
  share = {"model.share": str(this.task.module.config.share)}
  flat = {"model.pair": "", **this.trained_with, **share}
  flat |= {key: card_names.model(flat[key]) for key in card_names.MODELS}
  without = validate.OF_SIDES if flat["model.pair"] else ("model.pair",)
  keys = RECIPE + tuple(key for key in _OPTIONS if flat.get(key))
  if flat["train.label_smoothing"] and "train.smoothing_form" in flat:
    keys += ("train.smoothing_form",)
  keys += _LORA_RECIPE * bool(flat.get("model.lora_rank"))
  return {key: flat[key] for key in keys if key not in without}


def _base_models(flat: Mapping[str, Any]) -> tuple[str, ...]:
  """Hub ids that weights were taken from, each once."""
  names = [
    flat[f"model.{side}"]
    for side in ("encoder", "decoder")
    if flat[f"model.{side}_init"] == "pretrained"
  ]
  # A run from before there was the key has none.
  if pair := flat.get("model.pair"):
    names = [pair]
  # The Hub knows no folders of this machine.
  return tuple(dict.fromkeys(n for n in names if not card_names.is_local(n)))
