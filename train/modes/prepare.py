"""The sets of a run, tokenised and checked: what --mode=prepare does."""

from pathlib import Path

import jax

from train import validate
from train.config import Config
from train.errors import refusing
from train.setup import datasets, trained
from train.setup.task import build_task
from train.workdir import recorded_config, run_lock


def run(config: Config, folder: str) -> None:
  """Prepares every set of `data.train`, `data.eval` and `data.test`.

  One that is there is read to the last byte. Prints what there is, and where.

  Raises:
    Refusal: a set cannot be read, a store is damaged or cannot be written.
  """
  path = Path(folder)
  with refusing(), run_lock.held(path, until_begun=True):
    validate.check_values(config)
    if recorded_config.recorded(path) is not None:
      recorded_config.check_model(config, path, trained.FIXED)
    datasets.check(config, path)
    task = build_task(config, path)
    for uri, pairs in datasets.prepare_sets(config, task, path):
      if jax.process_index() == 0:
        megabytes = pairs.bytes / 1e6
        print(f"{uri}: {datasets.describe(pairs)}")
        print(f"  {megabytes:.1f} MB in {pairs.folder}, checksums verified")
