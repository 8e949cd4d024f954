"""A run with adapters: what it keeps, goes on from and hands over."""

import json
import shutil
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp
import peft
import pytest
import torch
import transformers
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from encdec.sharding import leaf_path
from tests.train.conftest import tiny, use_one_device, write_pairs
from train import loop
from train.errors import Refusal
from train.modes import export
from train.setup import trained
from train.setup.initial_params import first_params


def _flat(tree):
  return {
    leaf_path(path): np.array(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


@pytest.fixture(scope="module")
def runs(finished, tmp_path_factory):
  """Config and folder of a run with adapters, over a finished run's pair."""
  base_config, base_run, _ = finished
  folder = tmp_path_factory.mktemp("adapters")
  write_pairs(folder / "pairs.jsonl")
  config = tiny(folder)
  with pytest.MonkeyPatch.context() as monkeypatch:
    use_one_device(monkeypatch)
    export.run(base_config, str(base_run), output=str(folder / "base"))
    config.model.pair = str(folder / "base")
    config.model.lora_rank = 2
    config.model.lora_targets = ("*/query", "*/out", "*/mlp/*")
    config.model.lora_dora = True
    config.optim.lr = 1e-2
    config.model.dropout = 0.1
    loop.run(config, str(folder / "run"))
  return config, folder


def test_a_checkpoint_holds_what_is_trained_alone(runs, one_device):
  config, folder = runs
  this = trained.load(config, str(folder / "run"), 4)
  lora = this.task.module.config.lora
  assert lora is not None
  base, first = (
    _flat(this.params),
    _flat(first_params(config, this.task.module)),
  )
  saved = {path for path in base if not lora.is_base(path)}
  with ocp.StandardCheckpointer() as reader:
    item = reader.metadata(folder / "run/checkpoints/4/params")
    moments = reader.metadata(folder / "run/checkpoints/4/opt_state")
  held = getattr(item, "item_metadata", item)
  held = traverse_util.flatten_dict(getattr(held, "tree", held), sep="/")
  assert set(held) == saved
  sizes = sum(base[path].size for path in saved)
  assert sizes < sum(leaf.size for leaf in base.values()) / 2
  leaves = jax.tree.leaves(getattr(moments, "item_metadata", moments))
  kept = sum(np.prod(leaf.shape) for leaf in leaves if len(leaf.shape))
  assert kept == 2 * sizes
  for path in set(base) - saved:
    np.testing.assert_array_equal(base[path], first[path], err_msg=path)
  kernel = "decoder/layers/cross_attention/query/kernel"
  assert not np.array_equal(base[kernel], first[kernel])


def test_a_run_that_goes_on_ends_as_one_that_never_stopped(
  runs, tmp_path, one_device
):
  config, folder = runs
  shutil.copytree(folder / "run", tmp_path / "run")
  shutil.rmtree(tmp_path / "run/checkpoints/4")
  loop.run(config, str(tmp_path / "run"))
  ends = [
    _flat(trained.load(config, str(run / "run"), 4).params)
    for run in (folder, tmp_path)
  ]
  for path, leaf in ends[0].items():
    np.testing.assert_array_equal(ends[1][path], leaf, err_msg=path)
  before = _flat(trained.load(config, str(folder / "run"), 2).params)
  assert any(not np.array_equal(before[p], leaf) for p, leaf in ends[0].items())


def _pytorch(folder):
  load = transformers.EncoderDecoderModel.from_pretrained
  return load(folder, attn_implementation="eager").eval()


def _logits(model):
  ids = torch.arange(5, 25).reshape(2, 10)
  with torch.no_grad():
    return model(input_ids=ids, decoder_input_ids=ids[:, :6]).logits.numpy()


def test_it_is_exported_merged_or_for_peft(
  runs, tmp_path, one_device, assert_pytorch_generates
):
  config, folder = runs
  run, base = str(folder / "run"), folder / "base"
  export.run(config, run, step=4, output=str(tmp_path / "merged"))
  samples = folder / "run/samples/valid-00000004.jsonl"
  assert_pytorch_generates(tmp_path / "merged", samples)
  output = str(tmp_path / "adapters")
  for _ in range(2):
    export.run(config, run, step=4, output=output, adapters=True)
  assert not (tmp_path / "adapters/base").exists()
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
    warnings.filterwarnings("ignore", message="fan_in_fan_out")
    model = peft.PeftModel.from_pretrained(_pytorch(base), output)
  assert model.peft_config["default"].base_model_name_or_path == str(base)
  merged = _logits(_pytorch(tmp_path / "merged"))
  np.testing.assert_allclose(_logits(model), merged, atol=1e-4)
  assert np.abs(_logits(_pytorch(base)) - merged).max() > 1e-2
  with pytest.raises(Refusal, match="no export of adapters"):
    export.run(config, run, output=str(tmp_path / "merged"), adapters=True)


def test_a_base_that_was_made_here_is_written_beside_adapters(
  folders, tmp_path, one_device, caplog
):
  """A drawn head and grown rows, which no checkpoint holds."""
  folder, encoder, _ = folders
  config = tiny(folder)
  bare = transformers.BertModel(encoder.config, add_pooling_layer=False)
  bare.save_pretrained(folder / "bert")
  tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder / "bert"))
  assert tokenizer.add_tokens(["<hl>"])
  tokenizer.save_pretrained(str(folder / "bert"))
  config.model.encoder = config.model.decoder = str(folder / "bert")
  config.model.encoder_init = config.model.decoder_init = "pretrained"
  config.model.grow_vocabulary = True
  config.model.init_std = -1.0
  config.model.lora_rank = 2
  config.optim.lr = 1e-2
  config.optim.warmup_steps, config.train.steps = 1, 2
  run = str(tmp_path / "run")
  with caplog.at_level("WARNING", logger="absl"):
    loop.run(config, run)
  assert "decoder/head is drawn at random and stays so" in caplog.text
  assert "'decoder/head/*' to model.lora_unfrozen" in caplog.text
  export.run(config, run, output=str(tmp_path / "merged"))
  output = tmp_path / "adapters"
  for _ in range(2):
    export.run(config, run, output=str(output), adapters=True)
  base = json.loads((output / "adapter_config.json").read_text())
  base = base["base_model_name_or_path"]
  assert base == str(output / "base")
  before = _logits(_pytorch(base))
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
    model = peft.PeftModel.from_pretrained(_pytorch(base), str(output))
  merged = _logits(_pytorch(tmp_path / "merged"))
  np.testing.assert_allclose(_logits(model), merged, atol=1e-4)
  assert np.abs(before - merged).max() > 1e-3
  with model.disable_adapter():
    np.testing.assert_allclose(_logits(model), before, atol=1e-6)


def test_another_base_is_refused(runs, tmp_path, one_device):
  config, folder = runs
  file = folder / "base/model.safetensors"
  tensors = load_file(file)
  shutil.copy(file, tmp_path / "kept")
  name = "encoder.encoder.layer.0.output.dense.weight"
  changed = tensors[name].copy()
  changed[0, 0] += 1e-3
  save_file(tensors | {name: changed}, file, {"format": "pt"})
  try:
    for read in (trained.load, loop.run):
      with pytest.raises(Refusal, match="layers/mlp/down/kernel differs fr"):
        read(config, str(folder / "run"))
  finally:
    shutil.copy(tmp_path / "kept", file)


def test_a_run_without_adapters_has_none_to_export(finished, tmp_path):
  config, run, _ = finished
  with pytest.raises(Refusal, match=r"--adapters: model\.lora_rank = 0"):
    export.run(config, str(run), output=str(tmp_path / "hub"), adapters=True)
