"""Export of a trained model to a Hub folder: what --mode=export does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging

from encdec import hub
from train import decoding, trained, validate
from train.config import Config
from train.initialize import Task
from train.trained import Trained
from train.writer import read_rows


def run(
  config: Config,
  folder: str,
  *,
  step: int = -1,
  output: str,
  push_to_hub: str = "",
) -> None:
  """Writes what PyTorch's `EncoderDecoderModel.from_pretrained` loads.

  The source tokenizer stands at the root, the target's in target_tokenizer/
  where it differs.

  Args:
    output: the folder; made where it is missing.
    push_to_hub: also upload it to this id.

  Raises:
    Refusal: there is no such checkpoint, or `output` is missing or in use.
  """
  with validate.refusing():
    path = _check_output(output)
  this = trained.load(config, folder, step)
  source, target = this.task.source_tokenizer, this.task.target_tokenizer
  with jax.set_mesh(this.mesh):
    # Every process takes part in gathering, the first one writes.
    hub.save_folder(
      str(path),
      this.params,
      this.task.hub_config,
      tokens=this.task.tokens,
      generation=generation_settings(config, this.task),
      source_tokenizer=source,
      target_tokenizer=None
      if target.fingerprint == source.fingerprint
      else target,
      card=_card(this),
    )
  logging.info("exported step %d to %s", this.step, path)
  print(f"exported step {this.step} to {path}")
  if push_to_hub and jax.process_index() == 0:
    with validate.refusing():
      print(f"pushed to {hub.push_folder(str(path), push_to_hub)}")


def generation_settings(config: Config, task: Task) -> Mapping[str, Any]:
  """The run's own settings over those that came with the decoder."""
  return {
    **(task.generation or {}),
    "max_length": decoding.max_length(config),
    "min_length": config.generation.min_length,
    "num_beams": config.generation.num_beams,
    "length_penalty": config.generation.length_penalty,
    "no_repeat_ngram_size": config.generation.no_repeat_ngram_size,
    "early_stopping": {"false": False, "true": True, "never": "never"}[
      config.generation.early_stopping
    ],
  }


def _check_output(output: str) -> Path:
  if not output:
    raise validate.Refusal(
      "--output is missing: pass a folder, --output=runs/name/hub"
    )
  path = Path(output)
  if path.exists() and not path.is_dir():
    raise validate.Refusal(
      f"--output={output} is a file: an export is a folder; choose another"
    )
  return path


def _card(this: Trained) -> hub.Card:
  config = this.config
  rows = [
    row
    for row in read_rows(this.folder / "metrics.jsonl")
    if row["step"] == this.step
  ]
  names = [config.model.encoder, config.model.decoder]
  return hub.Card(
    title=this.folder.resolve().name,
    base_models=tuple(
      dict.fromkeys(name for name in names if not validate.is_preset(name))
    ),
    datasets=(config.data.train,),
    metrics={
      name: value
      for row in rows
      for name, value in row.items()
      if name.startswith("eval/")
    },
  )
