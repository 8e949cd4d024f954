"""The configuration that a run wrote down, and that it stays the same run."""

import json
import re
from pathlib import Path
from typing import Any

from data.io.digests import text_digest
from data.io.error_text import plain, quoted
from train import validate
from train.config import Config
from train.errors import Refusal
from train.generation_settings import UNSET
from train.workdir import json_files

# Values that leave a key unset, as JSON has them.
_NOT_SET = ("", [], False, 0, -1)
# Where another value leaves things as they were before the key existed.
_BEFORE = {
  "train.smoothing_form": "uniform",
  "eval.metrics": ["exact_match", "rouge"],
  "eval.rouge_stemmer": True,
  "eval.rouge_sentences": "lines",
  "eval.bleu_tokenize": "13a",
  "eval.sari_form": "authors",
  "model.lora_targets": ["*/query", "*/value"],
  "model.lora_unfrozen": ["*/cross_attention*"],
}
# What may change when a run goes on.
FREE = (
  r"train\.steps",
  r"train\.\w+_every_steps",
  r"train\.patience_evaluations",
  r"mesh\.\w+",
  r"data\.(prepare_)?workers",
  # Where ids lie; that they are the same ones is checked.
  r"data\.store",
  r"data\.restart_epoch",
)
# Of a difference that is printed: lines, and characters of a value.
_MOST_LINES, _MOST = 100, 1000
# What may change too where the epoch begins again.
RESTARTING = (
  r"train\.batch_size",
  r"data\.packing",
  r"data\.pack_\w+_length",
  r"data\.\w+_buckets",
)


def json_values(config: Config) -> dict[str, Any]:
  """{"section.key": value} as JSON has it: tuples are lists."""
  return json.loads(json.dumps(validate.flatten(config)))


def recorded(workdir: Path) -> dict[str, Any] | None:
  """The configuration that ran last in this folder, flat; None: none did."""
  path = workdir / "config.json"
  if not path.exists():
    return None
  flat = json_files.read_json(path)
  history = workdir / "config_history.jsonl"
  if history.exists():
    with json_files.naming_damage(history):
      for line in history.read_text(encoding="utf-8").splitlines():
        flat |= {k: new for k, (_, new) in json.loads(line)["changes"].items()}
  return flat


def fingerprint(config: Config) -> str:
  """A digest of all that may not change while a run goes on."""
  fixed = {
    k: v for k, v in json_values(config).items() if not _is_free(k, FREE)
  }
  return text_digest(json.dumps(fixed))


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, list]:
  """{key: [old value, new value]} of what differs.

  A key that is not set is equal to one that is set to what it then is, and to
  one that was not there yet when the run began.
  """
  keys = [*old, *(key for key in new if key not in old)]
  was, now = _with_defaults(old), _with_defaults(new)
  return {
    key: [old.get(key), new.get(key)]
    for key in keys
    if was.get(key) != now.get(key)
    and not (key not in old and _as_before(key, new[key]))
  }


def _as_before(key: str, value: Any) -> bool:
  """Whether a value asks for what a run did that knew no such key."""
  return value in _NOT_SET or value == _BEFORE.get(key, "")


def _with_defaults(flat: dict[str, Any]) -> dict[str, Any]:
  """With the defaults of keys that only a saved pair would set otherwise."""
  if flat.get("model.pair"):
    return flat
  values = dict(flat)
  defaults = {f"generation.{name}": pair for name, pair in UNSET.items()}
  defaults["model.share"] = ("", "none")
  for key, (unset, default) in defaults.items():
    if values.get(key, unset) == unset and default is not None:
      values[key] = default
  return values


def check_same(config: Config, workdir: Path) -> dict[str, list]:
  """The allowed changes since this folder's last run.

  Raises:
    Refusal: another key changed; the message is the difference.
  """
  old = recorded(workdir)
  if old is None:
    return {}
  changes = difference(old, json_values(config))
  restart = config.data.restart_epoch
  free = FREE + RESTARTING if restart else FREE
  refused = {k: c for k, c in changes.items() if not _is_free(k, free)}
  if refused:
    restarted = all(_is_free(k, RESTARTING) for k in refused)
    hint = ", or data.restart_epoch=True to begin the epoch again"
    raise Refusal(
      f"{workdir} holds a run of another config:\n"
      + "\n".join(_lines(refused))
      + f"\nset these back{hint * restarted}, or choose another --workdir"
    )
  return changes


def _lines(changes: dict[str, list]) -> list[str]:
  """What differs, a line each; a file's keys may be any number."""
  lines = [
    f"  {plain(key)}: {quoted(old, _MOST)} -> {quoted(new, _MOST)}"
    for key, (old, new) in changes.items()
  ]
  more = [f"  ... ({len(lines)} in all)"] if len(lines) > _MOST_LINES else []
  return lines[:_MOST_LINES] + more


def _is_free(key: str, patterns: tuple[str, ...]) -> bool:
  return any(re.fullmatch(pattern, key) for pattern in patterns)


def record(
  config: Config, workdir: Path, changes: dict[str, list], step: int
) -> None:
  """Writes config.json once, and each later change as a line of history."""
  if not (workdir / "config.json").exists():
    json_files.write_json(workdir / "config.json", json_values(config))
  elif changes:
    path = workdir / "config_history.jsonl"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    line = json.dumps({"step": step, "changes": changes})
    json_files.write_text(path, f"{old}{line}\n")


def check_model(config: Config, workdir: Path, keys: str) -> dict[str, Any]:
  """What a run that is only read was trained with, which is this model.

  Args:
    keys: pattern of the keys that may not differ.

  Raises:
    Refusal: there is no run, or its model is another one.
  """
  old = recorded(workdir)
  if old is None:
    raise Refusal(
      f"--workdir={workdir} holds no run: train there first, with the same "
      "--config and without --mode"
    )
  changes = {
    key: change
    for key, change in difference(old, json_values(config)).items()
    if re.fullmatch(keys, key)
  }
  if changes:
    raise Refusal(
      f"{workdir} was trained with another model:\n"
      + "\n".join(_lines(changes))
      + "\npass the --config it was trained with"
    )
  return old
