"""A run whose sources are sentences: what PyTorch gives for their types."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from train import loop, start
from train.errors import Refusal
from train.modes import export, predict
from train.setup.initial_params import first_params
from train.setup.task import restore_task


@pytest.fixture
def sentences_config(folders, tiny_config):
  """BERT to a random GPT-2, on sources of one to three lines."""
  folder, _, _ = folders
  lines = (folder / "pairs.jsonl").read_text().splitlines()
  with open(folder / "lines.jsonl", "w") as file:
    for number, line in enumerate(lines):
      pair = json.loads(line)
      words = pair["source"].split()[: 1 + number % 3]
      file.write(json.dumps(pair | {"source": "\n".join(words)}) + "\n")
  config = tiny_config
  config.model.encoder = str(folder / "bert")
  config.model.encoder_init = "pretrained"
  config.data.train = f"jsonl:{folder}/lines.jsonl"
  config.data.eval = f"valid=jsonl:{folder}/lines.jsonl@all[:9]"
  config.data.source_types = "sentences"
  return config


def test_encoder_states_are_pytorchs(folders, sentences_config):
  folder, encoder, _ = folders
  # Types that matter.
  torch.nn.init.normal_(encoder.embeddings.token_type_embeddings.weight)
  encoder.save_pretrained(folder / "bert")
  sentences_config.data.packing = "pack"
  this = start.build_run(sentences_config, folder / "run")
  module, batch = this.task.module, this.pipeline.batch(0)
  params = jax.tree.map(jnp.asarray, first_params(sentences_config, module))
  sides = {
    name: batch[f"encoder_{name}"]
    for name in ("tokens", "segments", "positions")
  }
  given = jax.tree.map(jnp.asarray, sides)
  ours, untyped = (
    module.apply(
      {"params": params}, **given, types=types, method="encode"
    ).states
    for types in (jnp.asarray(batch["encoder_types"]), None)
  )
  encoder.eval()
  found = set()
  for row, column in np.argwhere(batch["encoder_positions"] == 0).tolist():
    segment = sides["segments"][row, column]
    mine = sides["segments"][row] == segment
    if not segment:
      continue
    types = batch["encoder_types"][row][mine]
    with torch.no_grad():
      theirs = encoder(
        torch.tensor(sides["tokens"][row][mine])[None],
        token_type_ids=torch.tensor(types)[None],
      ).last_hidden_state[0]
    np.testing.assert_allclose(ours[row][mine], theirs, atol=2e-5)
    found.add(tuple(types.tolist()))
    same = np.allclose(untyped[row][mine], theirs, atol=2e-5)
    assert same == (not types.any())
  # Of one, two and three sentences.
  assert {0} in map(set, found) and {0, 1} in map(set, found)


def test_texts_are_pytorchs_on_all_devices(sentences_config, tmp_path):
  assert len(jax.devices()) == 8
  config, folder = sentences_config, str(tmp_path / "run")
  config.optim.lr = 1e-2
  loop.run(config, folder)
  assert restore_task(config, tmp_path / "run").batch_tokens.sentence_end
  output = tmp_path / "out.jsonl"
  source = config.data.eval.partition("=")[2]
  predict.run(config, folder, source=source, output=str(output))
  rows = [json.loads(line) for line in output.read_text().splitlines()]
  export.run(config, folder, output=str(tmp_path / "hub"))
  load = transformers.AutoTokenizer.from_pretrained
  one, other = load(tmp_path / "hub"), load(tmp_path / "hub/target_tokenizer")
  model = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "hub")
  typed, untyped = [], []
  for row in rows:
    ids, types = [], []
    for number, line in enumerate(row["source"].splitlines()):
      ids += (sentence := one(line)["input_ids"])
      types += [number % 2] * len(sentence)
    for texts, given in ((typed, types), (untyped, [0] * len(ids))):
      with torch.no_grad():
        tokens = model.eval().generate(
          torch.tensor([ids]), token_type_ids=torch.tensor([given])
        )
      texts += other.batch_decode(tokens, skip_special_tokens=True)
  assert [row["prediction"] for row in rows] == typed
  assert len(set(typed)) > 1


@pytest.mark.parametrize(
  ("key", "value", "said"),
  [
    ("model.encoder", "roberta:tiny", r"\(roberta\) has 1 types"),
    ("data.source_tokenizer", "gpt2", "ends a text with no token"),
  ],
)
def test_what_has_no_types_is_refused(
  folders, sentences_config, key, value, said
):
  folder, _, _ = folders
  config = sentences_config
  config.model.encoder_init = "random"
  if value == "gpt2":
    config.model.encoder, value = "bert:tiny", str(folder / "gpt2")
  config.update_from_flattened_dict({key: value})
  with pytest.raises(Refusal, match=rf"data\.source_types = .*{said}"):
    start.build_run(config, folder / "run")
