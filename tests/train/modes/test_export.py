"""Export: PyTorch loads the folder and generates the same texts."""

import dataclasses
import errno
import json
import os
import re
import shutil
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from encdec.hub.card import render
from train import loop, mesh, validate
from train.errors import Refusal
from train.modes import export
from train.setup import trained
from train.setup.task import restore_task


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


@pytest.mark.sample(1, group="exported runs")
def test_a_run_that_starts_with_padding_measures_what_pytorch_does(
  tiny_config, tmp_path, one_device
):
  """RoBERTa counts no position for its padding id, in evaluation either."""
  config, run, hub = tiny_config, tmp_path / "run", tmp_path / "hub"
  config.model.encoder = config.model.decoder = "roberta:tiny"
  config.model.start_token = "<pad>"
  config.data.source_vocab_size = config.data.target_vocab_size
  result = loop.run(config, str(run))
  export.run(config, str(run), step=4, output=str(hub))
  load: Any = transformers.AutoTokenizer.from_pretrained
  source = target = load(str(hub))
  if (hub / "target_tokenizer").exists():
    target = load(str(hub / "target_tokenizer"))
  model: Any = transformers.EncoderDecoderModel.from_pretrained(str(hub))
  start = model.generation_config.decoder_start_token_id
  assert start == target.pad_token_id == model.config.decoder.pad_token_id
  samples = (run / "samples/valid-00000004.jsonl").read_text().splitlines()
  nats = []
  for row in map(json.loads, samples):
    ids = torch.tensor([source(row["source"])["input_ids"]])
    labels = torch.tensor([target(row["target"])["input_ids"]])[:, :8]
    with torch.no_grad():
      logits = model.eval()(
        ids,
        decoder_input_ids=torch.cat(
          [torch.full((1, 1), start), labels[:, :-1]], dim=1
        ),
        use_cache=False,
      ).logits
    nats += torch.nn.functional.cross_entropy(
      logits[0], labels[0], reduction="none"
    ).tolist()
  np.testing.assert_allclose(
    result["eval/valid/loss"], np.mean(nats), rtol=1e-4
  )
  # PyTorch's cache counts a position for the start: the export does without.
  batch = source([json.loads(s)["source"] for s in samples], padding=True)
  with torch.no_grad():
    tokens = model.generate(
      torch.tensor(batch["input_ids"]),
      attention_mask=torch.tensor(batch["attention_mask"]),
    )
  texts = target.batch_decode(tokens, skip_special_tokens=True)
  assert texts == [json.loads(s)["prediction"] for s in samples]


def test_an_export_replaces_an_export_and_nothing_else(
  finished, tmp_path, one_device
):
  config, folder, _ = finished
  run, output = shutil.copytree(folder, tmp_path / "run"), tmp_path / "hub"
  for _ in range(2):
    export.run(config, str(run), step=4, output=str(output))
    assert "| eval/valid/loss |" in (output / "README.md").read_text()
  before = (run / "config.json").read_bytes()
  with pytest.raises(Refusal, match="no export: choose an empty"):
    export.run(config, str(run), step=4, output=str(run))
  assert (run / "config.json").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_refused(finished, one_device):
  config, folder, _ = finished
  with pytest.raises(
    Refusal, match="--output=/proc/no/hub: /proc/no cannot be made"
  ):
    export.run(config, str(folder), step=4, output="/proc/no/hub")


def test_the_card_tells_of_the_weights_and_of_nothing_else(
  finished, tmp_path, one_device
):
  """Whatever became of metrics.jsonl, and whatever this command's config is."""
  config, folder, result = finished
  run, output = shutil.copytree(folder, tmp_path / "run"), tmp_path / "hub"
  metrics = (run / "metrics.jsonl").read_text()
  (run / "metrics.jsonl").write_text(
    re.sub(r'"eval/valid/loss": [\d.]+', '"eval/valid/loss": 0.125', metrics)
  )
  other = config.copy_and_resolve_references()
  other.optim.lr, other.data.train = 0.5, "pydoc@train"
  export.run(other, str(run), step=4, output=str(output))
  card = (output / "README.md").read_text()
  assert f"| eval/valid/loss | {result['eval/valid/loss']:.4g} |" in card
  assert "| optim.lr | 0.0001 |" in card and "pydoc" not in card


def test_an_export_generates_as_the_run_did(finished, caplog):
  """Greedily, whatever the decoder's own files ask for."""
  config, folder, _ = finished
  task = dataclasses.replace(
    restore_task(config, folder),
    generation={"do_sample": True, "max_new_tokens": 3, "eos_token_id": 0},
  )
  with caplog.at_level("WARNING", logger="absl"):
    settings = export.generation_settings(config, task)
  assert "do_sample" not in settings and "max_new_tokens" not in settings
  assert "use it: do_sample, max_new_tokens" in caplog.text


def test_an_export_says_what_its_files_cannot(finished, caplog):
  config, folder, _ = finished
  task = restore_task(config, folder)
  config = config.copy_and_resolve_references()
  config.generation.scoring = "gnmt"
  with caplog.at_level("WARNING", logger="absl"):
    export.generation_settings(config, task)
  assert "generation.scoring='gnmt'" in caplog.text
  assert "block_trigrams" not in caplog.text


def test_a_missing_output_is_refused(finished, tmp_path):
  config, folder, _ = finished
  with pytest.raises(Refusal, match="--output is missing"):
    export.run(config, str(folder), output="")
  (tmp_path / "file").write_text("")
  with pytest.raises(Refusal, match="is a file"):
    export.run(config, str(folder), output=str(tmp_path / "file"))


def test_what_the_card_shows_runs(
  finished, tmp_path, one_device, capsys, monkeypatch
):
  """Both snippets as they stand, in the folder: the same texts."""
  config, folder, _ = finished
  output = tmp_path / "hub"
  export.run(config, str(folder), step=4, output=str(output))
  card = (output / "README.md").read_text()
  for line in (
    "| step | 4 |",
    f"| optim.lr | {config.optim.lr} |",
    f"| model.encoder | {config.model.encoder} |",
    "- `jsonl:pairs.jsonl`",
  ):
    assert line in card
  assert str(folder.parent) not in card
  snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
  assert len(snippets) == 2 and "subfolder" in snippets[0]
  monkeypatch.chdir(output)
  printed = []
  for snippet in snippets:
    capsys.readouterr()
    exec(snippet, {})
    printed.append(capsys.readouterr().out)
  assert printed[0] == printed[1] and printed[0].startswith("['")


def test_base_models_are_those_of_the_hub_whose_weights_were_taken(
  finished, tmp_path
):
  config = finished[0].copy_and_resolve_references()
  assert not export._base_models(validate.flatten(config))
  config.model.encoder_init = config.model.decoder_init = "pretrained"
  config.model.encoder, config.model.decoder = "some/bert", str(tmp_path)
  assert export._base_models(validate.flatten(config)) == ("some/bert",)
  config.model.decoder = "some/bert"
  assert export._base_models(validate.flatten(config)) == ("some/bert",)


def test_a_card_names_no_folder(finished):
  config, folder, _ = finished
  config = config.copy_and_resolve_references()
  config.model.encoder, config.model.decoder = "/home/me/bert", "~/gpt2"
  config.data.train = "1*jsonl:/home/me/a.jsonl@all[:9],3*csv:C:\\me\\b.csv"
  task = restore_task(finished[0], folder)
  this = trained.Trained(
    config,
    folder,
    task,
    mesh.make_mesh(mesh.MeshConfig()),
    step=4,
    weights="",
    trained_with=validate.flatten(config),
    metrics={},
    params={},
    shardings={},
  )
  card = render(export._card(this), task.hub_config, None)
  assert "- `0.25*jsonl:a.jsonl@all[:9]`\n- `0.75*csv:b.csv`\n" in card
  assert "| model.encoder | bert |\n" in card
  assert "| model.decoder | gpt2 |\n" in card
  assert not re.search(r"/home|~|C:|\\", card)
  config.model.pair = "/home/me/pair"
  this = dataclasses.replace(this, trained_with=validate.flatten(config))
  card = render(export._card(this), task.hub_config, None)
  assert "| model.pair | pair |\n" in card and "/home" not in card


def test_an_export_goes_on_where_the_disk_was_full(
  finished, tmp_path, one_device, monkeypatch
):
  """What it left is no foreign file, and nothing of it stays."""
  config, folder, _ = finished
  output, replace = tmp_path / "hub", os.replace

  def refuse(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "replace", refuse)
  with pytest.raises(OSError, match="No space"):
    export.run(config, str(folder), step=4, output=str(output))
  assert not list(output.iterdir())
  monkeypatch.setattr(os, "replace", replace)
  # As a kill leaves them.
  for name in ("config.json", "model.safetensors"):
    (output / f"{name}.partial-123").write_text("half")
  export.run(config, str(folder), step=4, output=str(output))
  assert (output / "model.safetensors").exists()
  assert not list(output.glob("*.partial-*"))
