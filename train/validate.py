"""Refusals: what is wrong with a configuration, said before compilation.

Each message names the key, its value and the fix.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data.pipeline import PACKINGS
from data.sources import parse_eval
from encdec.layers.kernels.select import IMPLEMENTATIONS
from encdec.stacks import remat_policy
from train import generation_settings
from train.build_step import step_config
from train.config import Config
from train.errors import Refusal, refusing
from train.evaluators import text
from train.generation_settings import UNSET
from train.mesh import MeshConfig
from train.optim.settings import OptimConfig
from train.setting_names import naming
from train.setup.lora import lora_config

CHOICES = {
  "model.encoder_init": ("pretrained", "random"),
  "model.decoder_init": ("pretrained", "random"),
  "model.decoder_embeddings_init": ("", "encoder"),
  "model.position_extension": ("repeat_last", "interpolate"),
  "model.share": ("none", "embeddings", "all", ""),
  "model.dtype": ("float32", "bfloat16"),
  "model.param_dtype": ("float32", "bfloat16"),
  "model.attention": ("auto", *IMPLEMENTATIONS),
  "model.attention_dropout": ("values", "weights"),
  "data.source_types": ("", "sentences"),
  "data.on_bad_record": ("error", "skip"),
  "data.packing": PACKINGS,
  "train.best_mode": ("min", "max"),
  "generation.early_stopping": ("false", "true", "never", ""),
  "generation.scoring": ("pytorch", "gnmt"),
}
# Key, least and greatest value.
RANGES: dict[str, tuple[float, float]] = {
  "seed": (0, (1 << 31) - 1),
  "model.encoder_positions": (0, 1 << 20),
  "model.decoder_positions": (0, 1 << 20),
  "model.scan_unroll": (1, 1024),
  "model.lora_rank": (0, 65536),
  "model.vocab_multiple": (1, 65536),
  "data.max_source_length": (2, 1 << 20),
  "data.max_target_length": (2, 1 << 20),
  "data.pack_source_length": (0, 1 << 20),
  "data.pack_target_length": (0, 1 << 20),
  "data.source_vocab_size": (260, 1 << 20),
  "data.target_vocab_size": (260, 1 << 20),
  "data.workers": (0, 1024),
  "data.prepare_workers": (0, 1024),
  "train.steps": (1, 1 << 40),
  "train.batch_size": (1, 1 << 30),
  "train.log_every_steps": (1, 1 << 40),
  "train.eval_every_steps": (0, 1 << 40),
  "train.checkpoint_every_steps": (0, 1 << 40),
  "train.keep_last": (1, 1 << 20),
  "train.patience_evaluations": (0, 1 << 30),
  "generation.num_beams": (1, 1024),
  "generation.length_penalty": (-8.0, 8.0),
  "generation.num_return_sequences": (1, 1024),
  "generation.no_repeat_ngram_size": (0, 1 << 20),
  "generation.max_length": (0, 1 << 20),
  "generation.min_length": (0, 1 << 20),
  "eval.batch_size": (0, 1 << 30),
  "eval.text_examples": (-1, 1 << 40),
  "eval.bootstrap_samples": (1, 1 << 30),
  "eval.print_examples": (0, 1 << 20),
}
REQUIRED = {
  "model.encoder": "a Hub id, a folder, or a preset such as bert:tiny",
  "model.decoder": "a Hub id, a folder, or a preset such as gpt2:tiny",
  "data.train": "a URI such as jsonl:pairs.jsonl or pydoc@train",
  "data.eval": "name=uri, such as valid=pydoc@valid",
}
# What a saved pair stands in place of.
OF_SIDES = tuple(
  f"model.{side}{what}"
  for side in ("encoder", "decoder")
  for what in ("", "_init", "_layers")
)


def flatten(config: Config) -> dict[str, Any]:
  """{"section.key": value}, in the order of the file."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, Config):
      flat |= {f"{key}.{name}": v for name, v in flatten(value).items()}
    else:
      flat[key] = value
  return flat


def suggest(key: str, known: Sequence[str]) -> str:
  """The nearest of the known names, as the end of a sentence."""
  names = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
  last = key.rpartition(".")[2]
  tails = {name.rpartition(".")[2]: name for name in known}
  near = [tails[t] for t in difflib.get_close_matches(last, tails, n=1)]
  # A right last part in a wrong section tells more than likeness as a whole.
  best = near if last in tails or not names else names
  return f"; did you mean {best[0]!r}?" if best else ""


def check_values(config: Config, begins: bool = True) -> None:
  """What the values alone can tell; `begins`: of a run that trains by them."""
  flat = flatten(config)
  for key, hint in REQUIRED.items():
    if not flat[key] and not (flat["model.pair"] and key in OF_SIDES):
      raise Refusal(f"{key} is empty: set it to {hint}")
  for key, choices in CHOICES.items():
    if flat[key] not in choices:
      shown = ", ".join(choice or "'' (unset)" for choice in choices)
      raise Refusal(f"{key} = {flat[key]!r}: choose one of {shown}")
  check_ranges(flat)
  with naming(remat="model.remat"):
    remat_policy(flat["model.remat"])
  with refusing():
    # These sections check themselves.
    OptimConfig(**config.optim.to_dict())
    MeshConfig(**config.mesh.to_dict())
    lora_config(config)
    step_config(config)
    text.configured(config)
  for side in ("encoder", "decoder"):
    if not flat["model.pair"]:
      _check_init(side, flat)
  _check_dropout(flat)
  _check_sets(flat)
  _check_buckets(flat)
  _check_steps(flat)
  if begins:  # Else the best is by what training measured.
    _check_best(flat)
  _check_share(flat)
  if not flat["model.pair"]:
    with refusing():
      generation_settings.resolve(config)


def check_ranges(flat: Mapping[str, Any], section: str = "") -> None:
  """Numbers of keys that begin with `section` lie within their ranges."""
  for key, (least, greatest) in RANGES.items():
    if not key.startswith(section):
      continue
    unset, _ = UNSET.get(key.removeprefix("generation."), (None, None))
    if flat[key] != unset and not least <= flat[key] <= greatest:
      raise Refusal(
        f"{key} = {flat[key]!r}: set it between {least} and {greatest}"
      )


def best_metric(flat: Mapping[str, Any]) -> str:
  """The value of metrics.jsonl that chooses the best checkpoint."""
  first = next(iter(parse_eval(flat["data.eval"])))
  return flat["train.best_metric"] or f"eval/{first}/loss"


def is_preset(name: str) -> bool:
  """Whether a model's name is "architecture:size"."""
  return bool(re.fullmatch(r"[\w-]+:[\w-]+", name))


def _check_init(side: str, flat: dict[str, Any]) -> None:
  name = flat[f"model.{side}"]
  if is_preset(name) and flat[f"model.{side}_init"] == "pretrained":
    raise Refusal(
      f"model.{side}_init = 'pretrained': the preset {name!r} has no weights; "
      f"set it to 'random', or model.{side} to a Hub id"
    )


def _check_dropout(flat: dict[str, Any]) -> None:
  rate = flat["model.dropout"]
  if rate == 0.0 and flat["train.r_drop"]:
    raise Refusal(
      f"train.r_drop = {flat['train.r_drop']} compares two dropouts, and "
      "model.dropout = 0.0: set a rate, or train.r_drop to 0.0"
    )
  if rate != -1.0 and not 0.0 <= rate < 1.0:
    raise Refusal(
      f"model.dropout = {rate}: set it to a rate below 1, or to -1.0 for the "
      "rates of the Hub configs"
    )
  std = flat["model.init_std"]
  if std != -1.0 and not 0.0 < std < float("inf"):
    raise Refusal(
      f"model.init_std = {std}: set it above 0, or to -1.0 for the Hub config's"
    )


def _check_sets(flat: dict[str, Any]) -> None:
  for key in ("data.eval", "data.test"):
    with naming(key, flat[key]):
      names = list(parse_eval(flat[key]))
    if flat[key] and not names:
      raise Refusal(f"{key} = {flat[key]!r}: set it to {REQUIRED['data.eval']}")
    taken = {f"{name}_{end}" for name in names for end in ("permuted", "gain")}
    if flat["eval.permute_sources"] and (twice := taken & set(names)):
      raise Refusal(
        f"{key}: eval.permute_sources makes a set {twice.pop()!r} of its own; "
        "give that set another name"
      )


def _check_buckets(flat: dict[str, Any]) -> None:
  sources, targets = flat["data.source_buckets"], flat["data.target_buckets"]
  if len(sources) != len(targets):
    raise Refusal(
      f"data.source_buckets = {sources} and data.target_buckets = {targets} "
      "are zipped: give them the same length"
    )
  for side, buckets in (("source", sources), ("target", targets)):
    longest = flat[f"data.max_{side}_length"]
    whole = all(type(length) is int and length > 0 for length in buckets)
    if buckets and not (whole and max(buckets) == longest):
      raise Refusal(
        f"data.{side}_buckets = {buckets}: give whole numbers from 1, the "
        f"largest of them data.max_{side}_length = {longest}"
      )
  buckets = set(zip(sources, targets, strict=True))
  if sources and (max(sources), max(targets)) not in buckets:
    raise Refusal(
      f"data.source_buckets = {sources}, data.target_buckets = {targets}: no "
      "bucket has both maximum lengths; add it"
    )


def _check_share(flat: dict[str, Any]) -> None:
  """Sides that share read the same ids; all is shared from one checkpoint."""
  if flat["model.share"] in ("none", "") or flat["model.pair"]:
    return
  same = [("data.source_tokenizer", "data.target_tokenizer")]
  if is_preset(flat["model.encoder"]) and not flat["data.source_tokenizer"]:
    # One is trained.
    same.append(("data.source_vocab_size", "data.target_vocab_size"))
  alike = flat["model.encoder_init"] == flat["model.decoder_init"]
  if alike and flat["model.share"] == "all":
    same.append(("model.encoder", "model.decoder"))
  for one, other in same:
    if flat[one] != flat[other]:
      raise Refusal(
        f"model.share = {flat['model.share']!r}, but {one} = {flat[one]!r} and "
        f"{other} = {flat[other]!r}: set them to the same, or model.share to "
        "'none'"
      )


def _check_best(flat: dict[str, Any]) -> None:
  key, mode = flat["train.best_metric"], flat["train.best_mode"]
  generated = flat["eval.metrics"] if flat["eval.text_examples"] >= 0 else ()
  metrics = ["loss", "accuracy", *text.value_names(generated)]
  names = [
    f"eval/{name}/{metric}"
    for name in parse_eval(flat["data.eval"])
    for metric in metrics
  ]
  if key and key not in names:
    raise Refusal(
      f"train.best_metric = {key!r} is not measured{suggest(key, names)}; "
      f"there are {', '.join(names)}"
    )
  better = text.better(best_metric(flat).rpartition("/")[2])
  if better not in ("", mode):
    raise Refusal(
      f"train.best_mode = {mode!r} keeps the worst {best_metric(flat)}: set it "
      f"to {better!r}"
    )


def _check_steps(flat: dict[str, Any]) -> None:
  batch, accumulate = flat["train.batch_size"], flat["train.accumulate_steps"]
  if batch % accumulate:
    raise Refusal(
      f"train.batch_size = {batch} does not divide into "
      f"train.accumulate_steps = {accumulate} microbatches; make it a multiple"
    )
  if flat["train.patience_evaluations"] and not flat["train.eval_every_steps"]:
    raise Refusal(
      f"train.patience_evaluations = {flat['train.patience_evaluations']}, but "
      "train.eval_every_steps = 0: set it to the steps between evaluations"
    )
  optim = {
    key.removeprefix("optim."): value
    for key, value in flat.items()
    if key.startswith("optim.")
  }
  for pattern, own in OptimConfig(**optim).by_pattern().items():
    if own.warmup_steps > flat["train.steps"]:
      where = f"optim.groups: {pattern!r}: " if pattern else ""
      raise Refusal(
        f"{where}optim.warmup_steps = {own.warmup_steps} is more than "
        f"train.steps = {flat['train.steps']}: lower it"
      )
