"""Export: PyTorch loads the folder and generates the same texts."""

import dataclasses
import re
import shutil

import pytest

from train import export, initialize, validate


def test_pytorch_generates_what_evaluation_generated(
  finished, tmp_path, one_device, capsys, assert_pytorch_generates
):
  config, folder, _ = finished
  export.run(config, str(folder), step=4, output=str(tmp_path / "hub"))
  assert "exported step 4" in capsys.readouterr().out
  assert (tmp_path / "hub/target_tokenizer").exists()
  assert_pytorch_generates(
    tmp_path / "hub", folder / "samples/valid-00000004.jsonl"
  )


def test_an_export_replaces_an_export_and_nothing_else(
  finished, tmp_path, one_device
):
  config, folder, _ = finished
  run, output = shutil.copytree(folder, tmp_path / "run"), tmp_path / "hub"
  metrics = (run / "metrics.jsonl").read_text()
  null = re.sub(
    r'"eval/valid/loss": [\d.]+', '"eval/valid/loss": null', metrics
  )
  (run / "metrics.jsonl").write_text(null)
  export.run(config, str(run), step=4, output=str(output))
  card = (output / "README.md").read_text()
  assert "| eval/valid/loss |" not in card and "| eval/valid/rougeL |" in card
  (run / "metrics.jsonl").write_text(metrics)
  export.run(config, str(run), step=4, output=str(output))
  assert "| eval/valid/loss |" in (output / "README.md").read_text()
  before = (run / "config.json").read_bytes()
  with pytest.raises(validate.Refusal, match="no export: choose an empty"):
    export.run(config, str(run), step=4, output=str(run))
  assert (run / "config.json").read_bytes() == before


def test_an_export_generates_as_the_run_did(finished, caplog):
  """Greedily, whatever the decoder's own files ask for."""
  config, folder, _ = finished
  task = dataclasses.replace(
    initialize.restore(config, folder),
    generation={"do_sample": True, "max_new_tokens": 3, "eos_token_id": 0},
  )
  with caplog.at_level("WARNING", logger="absl"):
    settings = export.generation_settings(config, task)
  assert "do_sample" not in settings and "max_new_tokens" not in settings
  assert "heed it: do_sample, max_new_tokens" in caplog.text


def test_an_export_says_what_its_files_cannot(finished, caplog):
  config, folder, _ = finished
  task = initialize.restore(config, folder)
  config = config.copy_and_resolve_references()
  config.generation.scoring = "gnmt"
  with caplog.at_level("WARNING", logger="absl"):
    export.generation_settings(config, task)
  assert "generation.scoring='gnmt'" in caplog.text
  assert "block_trigrams" not in caplog.text


def test_a_missing_output_is_refused(finished, tmp_path):
  config, folder, _ = finished
  with pytest.raises(validate.Refusal, match="--output is missing"):
    export.run(config, str(folder), output="")
  (tmp_path / "file").write_text("")
  with pytest.raises(validate.Refusal, match="is a file"):
    export.run(config, str(folder), output=str(tmp_path / "file"))
