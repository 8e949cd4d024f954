"""What a checkpoint says of the data it has seen, and where a run goes on."""

import math
from typing import Any

from absl import logging

from data.pipeline import Pipeline
from train.errors import Refusal

# What decides the plan, by the keys that change it.
_KEYS = {
  "packing": "data.packing",
  "batch_size": "train.batch_size",
  "shapes": "data.*_buckets, data.pack_*_length",
}


def describe(pipeline: Pipeline, step: int) -> dict[str, Any]:
  """The plan until `step`, as JSON has it.

  `epochs` are those of each source that were done, with fractions.
  """
  plan = pipeline.plan
  return {
    "pairs": pipeline.pairs.fingerprint,
    "plan": pipeline.fingerprint,
    "packing": pipeline.packing,
    "batch_size": pipeline.batch_size,
    "shapes": [list(shape) for shape in pipeline.shapes],
    "first_step": plan.first_step,
    "first_epochs": list(plan.first_epochs),
    "epochs": list(plan.epochs(step)),
  }


def resume(
  pipeline: Pipeline, seen: dict[str, Any], step: int, restart_epoch: bool
) -> Pipeline:
  """`pipeline` from `step` on, after what was `seen`.

  With another plan, and `restart_epoch`, each source begins the epoch again
  that it was in: the pairs that this epoch had shown are seen once more, those
  of the epochs before are not.

  Raises:
    Refusal: other pairs; or another plan, and not `restart_epoch`.
  """
  if seen["pairs"] != pipeline.pairs.fingerprint:
    names = ", ".join(part.source.name for part in pipeline.pairs.parts)
    raise Refusal(
      f"data.train = {names!r} holds other pairs than those that were trained "
      f"on until step {step}: restore the data, or choose another --workdir"
    )
  if seen["plan"] == pipeline.fingerprint:
    return pipeline.begin(seen["first_step"], tuple(seen["first_epochs"]))
  now = describe(pipeline, pipeline.plan.first_step)
  changes = "".join(
    f"\n  {key}: {seen[name]!r} -> {now[name]!r}"
    for name, key in _KEYS.items()
    if seen[name] != now[name]
  )
  changes = changes or "\n  the code that plans, or data.train's weights"
  epochs = [math.floor(done) for done in seen["epochs"]]
  if not restart_epoch:
    raise Refusal(
      f"the batches after step {step} would be of another plan:{changes}\nset "
      "these back; or set data.restart_epoch=True, which begins epoch "
      f"{_names(epochs)} again, {_shares(seen['epochs'])} of which was seen"
    )
  logging.info(
    "another plan from step %d on:%s\nepoch %s begins again, %s of it is seen "
    "twice",
    step,
    changes,
    _names(epochs),
    _shares(seen["epochs"]),
  )
  return pipeline.begin(step, tuple(epochs))


def _names(epochs: list[int]) -> str:
  return ", ".join(map(str, epochs))


def _shares(epochs: list[float]) -> str:
  return ", ".join(f"{done % 1:.1%}" for done in epochs)
