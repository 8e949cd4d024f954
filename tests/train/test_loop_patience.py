"""A run that no longer improves ends, and the same command knows it."""

import pytest

from tests.train.test_loop import rows_of
from train import loop, start
from train.checkpoint import Checkpoints

pytestmark = pytest.mark.usefixtures("one_device")


def test_it_ends_saved_and_goes_on_with_more_patience(
  tiny_config, tmp_path, capsys, monkeypatch
):
  config, run = tiny_config, tmp_path / "run"
  # Nothing is learnt: the first evaluation stays the best one.
  config.optim.lr, config.optim.warmup_steps = 1e-30, 0
  config.optim.schedule = "constant"
  config.eval.text_examples = -1
  config.train.eval_every_steps = 1
  config.train.patience_evaluations = 2
  config.train.steps = 2
  loop.run(config, str(run))
  assert "ended early" not in capsys.readouterr().out
  # Evaluations from before the interruption count.
  config.train.steps = 6
  result = loop.run(config, str(run))
  out = capsys.readouterr().out
  assert "finished at step 3" in out
  assert "ended early: eval/valid/loss has not improved since step 1 (" in out
  assert [row["step"] for row in rows_of(run)] == [1, 2, 3]
  with Checkpoints(run / "checkpoints", writable=False) as checkpoints:
    assert checkpoints.latest_step() == 3 and checkpoints.metrics(3)
  with monkeypatch.context() as patch:
    patch.setattr(start, "compile_step", None)
    assert loop.run(config, str(run)) == result
  assert "finished at step 3" in capsys.readouterr().out
  # Without end it goes on from there.
  config.train.patience_evaluations, config.train.steps = 0, 4
  loop.run(config, str(run))
  out = capsys.readouterr().out
  assert "finished at step 4" in out and "ended early" not in out
  assert [row["step"] for row in rows_of(run)] == [1, 2, 3, 4]
