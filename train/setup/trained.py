"""A trained model, read back from the folder of its run."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from data.io.digests import digest
from encdec.model import param_shapes
from encdec.sharding import param_specs
from encdec.types import Params
from train import validate
from train.checkpoint import Checkpoints
from train.config import Config
from train.errors import refusing
from train.mesh import MeshConfig, make_mesh, sharding_rules
from train.setting_names import naming
from train.setup import base_weights
from train.setup.task import Task, restore_task
from train.workdir import recorded_config

# What made the weights and their ids; all else may differ from training.
FIXED = (
  r"model\.(pair|encoder|decoder|share|param_dtype|vocab_multiple)"
  r"|model\.(\w+_(layers|token)|lora_\w+)"
  r"|data\.((source|target)_(tokenizer|language|vocab_size)"
  r"|keep_case|source_types)"
)


@dataclasses.dataclass(frozen=True)
class Trained:
  """Parameters of one checkpoint, on the devices of a mesh.

  Attributes:
    step: the checkpoint they came from.
    weights: hex digest of that checkpoint's checksums.
    trained_with: the configuration that ran, {"section.key": value}.
    metrics: finite ones that its evaluation gave; empty: it had none.
    shardings: where each of them lies.
  """

  config: Config
  folder: Path
  task: Task
  mesh: Mesh
  step: int
  weights: str
  trained_with: Mapping[str, Any]
  metrics: Mapping[str, float]
  params: Params
  shardings: Params


def load(config: Config, folder: str, step: int = -1) -> Trained:
  """The best checkpoint of a run, else the latest; or that of `step`.

  Raises:
    Refusal: there is no such run or checkpoint, or its model is another one.
  """
  path = Path(folder)
  with refusing():
    validate.check_values(config, begins=False)
    trained_with = recorded_config.check_model(config, path, FIXED)
    rules = sharding_rules(config)
    mesh = make_mesh(MeshConfig(**config.mesh.to_dict()))
    task = restore_task(config, path).on(mesh)
    shapes = param_shapes(task.module)
    shardings = param_specs(shapes, rules, mesh)
    abstract = jax.tree.map(
      lambda leaf, where: jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=where
      ),
      shapes,
      shardings,
    )
    with Checkpoints(
      path / "checkpoints",
      best_metric=validate.best_metric(trained_with),
      best_mode=trained_with["train.best_mode"],
      writable=False,
    ) as checkpoints:
      with naming("" if step == -1 else "--step"):
        params, meta = checkpoints.restore_params(
          base_weights.saved_part(abstract, task.module.config.lora),
          None if step == -1 else step,
        )
      metrics = checkpoints.metrics(meta["step"])
    params = base_weights.completed(
      params, meta, config, task.module, mesh, abstract
    )
  step = meta["step"]
  manifests = sorted(
    (path / "checkpoints" / str(step)).glob("checksums-*-of-*")
  )
  return Trained(
    config=config,
    folder=path,
    task=task,
    mesh=mesh,
    step=step,
    weights=digest(file.read_bytes() for file in manifests),
    trained_with=trained_with,
    metrics=metrics,
    params=params,
    shardings=shardings,
  )
