"""Loading holds the parameters and little more."""

import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from flax import traverse_util

from encdec.hub import configs
from encdec.hub.files import safetensors_writer, weight_files
from encdec.hub.weights.tensor_map import hub_shape, tensor_mappings
from encdec.model import FlaxEncoderDecoderModule, param_shapes

# The baseline is taken between the two lines that it prints.
CHILD = """
import sys
from encdec.hub.facade.model import FlaxEncoderDecoderModel
print("imported", flush=True)
sys.stdin.readline()
model = FlaxEncoderDecoderModel.from_pretrained(sys.argv[1])
import jax
jax.block_until_ready(model.params)
print("loaded", flush=True)
sys.stdin.readline()
"""
MOST = 1.3


def _config():
  side = {
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 6000,
  }
  return configs.compose_config(
    transformers.BertConfig(**side, num_hidden_layers=6),
    transformers.BertConfig(**side, num_hidden_layers=5),
  )


def _save(folder: Path) -> int:
  """A folder with weights of ones; gives the bytes of its parameters."""
  hub = _config()
  config = configs.encdec_config(hub)
  hub.save_pretrained(folder)
  shapes = traverse_util.flatten_dict(
    param_shapes(FlaxEncoderDecoderModule(config)), sep="/"
  )
  tensors = [
    safetensors_writer.TensorToWrite(
      mapping.name,
      shape := hub_shape(mapping, shapes[mapping.path].shape),
      np.dtype(np.float32),
      lambda shape=shape: np.ones(shape, np.float32),
    )
    for mapping in tensor_mappings(config)
  ]
  safetensors_writer.write_weights(folder, tensors, "150MB")
  return sum(tensor.size for tensor in tensors)


def _anonymous(pid: int) -> int:
  """RssAnon in bytes."""
  for line in Path(f"/proc/{pid}/status").read_text().splitlines():
    if line.startswith("RssAnon:"):
      return int(line.split()[1]) * 1024
  raise AssertionError("no RssAnon in /proc/<pid>/status")


def _save_pickle(folder: Path) -> int:
  """The same in PyTorch's own format."""
  size = _save(folder)
  tensors = weight_files.open_weights(folder)
  state = {name: torch.ones(tensors[name].shape) for name in tensors}
  torch.save(state, folder / "pytorch_model.bin")
  for path in folder.glob("*.safetensors*"):
    path.unlink()
  return size


@pytest.mark.sample(1)
@pytest.mark.parametrize("save", [_save, _save_pickle])
def test_loading_adds_at_most_1_3_times_the_parameters(tmp_path, save):
  size = save(tmp_path)
  assert size >= 400e6
  with subprocess.Popen(
    [sys.executable, "-c", CHILD, str(tmp_path)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    cwd=Path(__file__).parents[4],
  ) as child:
    assert child.stdout and child.stdin
    assert child.stdout.readline() == "imported\n"
    before = _anonymous(child.pid)
    child.stdin.write("\n")
    child.stdin.flush()
    peak = before
    while not select.select([child.stdout], [], [], 0.01)[0]:
      peak = max(peak, _anonymous(child.pid))
    assert child.stdout.readline() == "loaded\n"
    peak = max(peak, _anonymous(child.pid))
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.wait() == 0
  ratio = (peak - before) / size
  print(f"loading {size / 1e6:.0f} MB added {ratio:.3f} times that")
  # Less than the parameters themselves would mean that nothing was measured.
  assert 0.95 < ratio <= MOST
