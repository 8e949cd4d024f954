"""A run that no longer improves ends, and the same command knows it."""

import json
import shutil

import pytest

from tests.train.test_loop import rows_of
from train import loop, start
from train.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures("one_device")


def test_it_ends_saved_and_is_finished(finished, tmp_path, capsys, monkeypatch):
  config, folder, _ = finished
  run = shutil.copytree(folder, tmp_path / "run")
  # What no later evaluation reaches; one has passed since.
  rows = rows_of(run)
  rows[1]["eval/valid/loss"] = 0.0
  (run / "metrics.jsonl").write_text(
    "".join(json.dumps(row) + "\n" for row in rows)
  )
  config = config.copy_and_resolve_references()
  config.train.patience_evaluations, config.train.steps = 2, 9
  result = loop.run(config, str(run))
  out = capsys.readouterr().out
  assert "finished at step 6" in out
  assert "ended early: eval/valid/loss has not improved since step 2 (" in out
  assert [row["step"] for row in rows_of(run)] == [1, 2, 3, 4, 5, 6]
  with Checkpoints(run / "checkpoints", writable=False) as checkpoints:
    assert checkpoints.latest_step() == 6 and checkpoints.metrics(6)
  monkeypatch.setattr(start, "compile_step", None)
  assert loop.run(config, str(run)) == result
  assert "finished at step 6" in capsys.readouterr().out
  # The control: with more patience it would go on.
  config.train.patience_evaluations = 3
  with pytest.raises(TypeError, match="not callable"):
    loop.run(config, str(run))
