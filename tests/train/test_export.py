"""Export: PyTorch loads the folder and generates the same texts."""

import json

import pytest
import torch
import transformers

from train import export, validate


def test_pytorch_generates_what_evaluation_generated(
  finished, tmp_path, one_device, capsys
):
  config, folder, _ = finished
  export.run(config, str(folder), step=4, output=str(tmp_path / "hub"))
  assert "exported step 4" in capsys.readouterr().out
  model, info = transformers.EncoderDecoderModel.from_pretrained(
    str(tmp_path / "hub"), output_loading_info=True
  )
  assert not info["missing_keys"] and not info["unexpected_keys"]
  source = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "hub"))
  target = transformers.AutoTokenizer.from_pretrained(
    str(tmp_path / "hub/target_tokenizer")
  )
  path = folder / "samples/valid-00000004.jsonl"
  samples = [json.loads(line) for line in path.read_text().splitlines()]
  batch = source([s["source"] for s in samples], padding=True)
  with torch.no_grad():
    tokens = model.eval().generate(
      torch.tensor(batch["input_ids"]),
      attention_mask=torch.tensor(batch["attention_mask"]),
    )
  texts = target.batch_decode(tokens, skip_special_tokens=True)
  assert texts == [s["prediction"] for s in samples]
  # Texts that depend on their source, or equality would prove little.
  assert len(set(texts)) > 3


def test_a_missing_output_is_refused(finished, tmp_path):
  config, folder, _ = finished
  with pytest.raises(validate.Refusal, match="--output is missing"):
    export.run(config, str(folder), output="")
  (tmp_path / "file").write_text("")
  with pytest.raises(validate.Refusal, match="is a file"):
    export.run(config, str(folder), output=str(tmp_path / "file"))
