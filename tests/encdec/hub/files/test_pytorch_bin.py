"""PyTorch's weight files: read as PyTorch reads them, others refused."""

import collections
import io
import pickle
import re
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers

from encdec import FlaxEncoderDecoderModel
from encdec.hub.files import unpickle, weight_files
from encdec.hub.files.mmap import WeightFileError

NAME = "pytorch_model.bin"


ZIPPED = [pytest.param(True, id="zip"), pytest.param(False, id="old")]


def _save(folder, value, zipped=True, name=NAME):
  torch.save(value, folder / name, _use_new_zipfile_serialization=zipped)
  return folder / name


def _numpy(tensor):
  if tensor.dtype == torch.bfloat16:
    raw = tensor.contiguous().view(torch.uint16).numpy()
    return raw.view(ml_dtypes.bfloat16)
  return tensor.detach().numpy()


def _assert_read(folder, wanted):
  found = weight_files.open_weights(folder)
  assert set(found) == set(wanted)
  for name, tensor in wanted.items():
    array = _numpy(tensor)
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)
    assert not found[name].flags.writeable


def _state(seed):
  torch.manual_seed(seed)
  grid = torch.randn(4, 6)
  return collections.OrderedDict(
    {
      "float": grid,
      "tied": grid,
      "turned": grid.T,
      "window": grid[1:3, ::2],
      "wide": torch.randn(3).expand(2, 3),
      "half": torch.randn(5).half(),
      "bfloat": torch.randn(3, 2).bfloat16(),
      "double": torch.randn(2).double(),
      "ids": torch.arange(6)[None],
      "flag": torch.tensor([True, False]),
      "scalar": torch.tensor(2.5),
      "empty": torch.zeros(0, 3),
      "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }
  )


@pytest.mark.parametrize("zipped", ZIPPED)
def test_tensors_are_those_that_pytorch_saved(tmp_path, seed, zipped):
  state = _state(seed)
  path = _save(tmp_path, state, zipped)
  assert zipfile.is_zipfile(path) == zipped
  _assert_read(tmp_path, state)


@pytest.mark.parametrize("zipped", ZIPPED)
def test_a_modules_state_with_its_versions_is_read(tmp_path, zipped):
  module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
  state = module.state_dict()
  assert state._metadata
  state["epoch"] = 3
  state["note"] = None
  _save(tmp_path, state, zipped)
  _assert_read(tmp_path, module.state_dict())


@pytest.mark.parametrize("zipped", ZIPPED)
def test_shards_are_read_by_their_index(tmp_path, seed, zipped):
  state = _state(seed)
  names = list(state)
  shards = {
    "pytorch_model-00001-of-00002.bin": names[:5],
    "pytorch_model-00002-of-00002.bin": names[5:],
  }
  weight_map = {n: shard for shard, held in shards.items() for n in held}
  for shard, held in shards.items():
    _save(tmp_path, {name: state[name] for name in held}, zipped, shard)
  (tmp_path / f"{NAME}.index.json").write_text(
    repr({"weight_map": weight_map}).replace("'", '"')
  )
  _assert_read(tmp_path, state)
  (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
  with pytest.raises(WeightFileError, match=r"00002\.bin is missing"):
    weight_files.open_weights(tmp_path)


@pytest.mark.parametrize("zipped", ZIPPED)
@pytest.mark.parametrize(
  "dtype", [torch.float32, torch.float16, torch.bfloat16]
)
def test_a_pair_computes_what_it_does_in_pytorch(
  tmp_path, seed, tiny_config, batch, zipped, dtype
):
  """With the tied head's second name, as PyTorch writes it."""
  torch.manual_seed(seed)
  pair = transformers.EncoderDecoderModel(tiny_config).eval().to(dtype)
  tiny_config.save_pretrained(tmp_path)
  state = pair.state_dict()
  assert "decoder.lm_head.weight" in state
  _save(tmp_path, state, zipped)
  pair = pair.float()
  model = FlaxEncoderDecoderModel.from_pretrained(tmp_path)
  assert model.params["encoder"]["embeddings"]["tokens"]["embedding"].dtype == (
    np.float32
  )
  source, target = batch
  with torch.no_grad():
    wanted = pair(
      input_ids=torch.tensor(source), decoder_input_ids=torch.tensor(target)
    ).logits.numpy()
  found = model(source, decoder_input_ids=target).logits
  np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_safetensors_come_before_a_pickle(tmp_path, seed):
  _save(tmp_path, _state(seed))
  (tmp_path / weight_files.SINGLE).write_bytes(b"")
  with pytest.raises(WeightFileError, match="safetensors is truncated"):
    weight_files.open_weights(tmp_path)


class _Calls:
  def __init__(self, called, *arguments):
    self.reduced = called, arguments

  def __reduce__(self):
    return self.reduced


_STORAGE = object()


def _hostile(folder, change):
  """A file whose tensor is rebuilt from other arguments."""
  tensor = torch.arange(6.0).reshape(2, 3)

  class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
      if obj is _STORAGE:
        return ("storage", torch.FloatStorage, "0", "cpu", 6)
      return None

  arguments = {"storage": _STORAGE, "offset": 0, "size": (2, 3)}
  arguments |= {"stride": (3, 1), "grad": False, "hooks": {}} | change
  stream = io.BytesIO()
  rebuild = torch._utils._rebuild_tensor_v2
  Pickler(stream, 2).dump({"t": _Calls(rebuild, *arguments.values())})
  with zipfile.ZipFile(folder / NAME, "w") as archive:
    archive.writestr("archive/data.pkl", stream.getvalue())
    archive.writestr("archive/data/0", tensor.numpy().tobytes())


@pytest.mark.parametrize(
  "change",
  [
    {"offset": 1},
    {"offset": -1},
    {"offset": 10**30},
    {"size": (3, 3)},
    {"size": (10**12, 3)},
    {"size": (2**62, 2**62)},
    {"size": (-1, 3)},
    {"size": (10**30, 0)},
    {"size": (1,) * 100, "stride": (1,) * 100},
    {"size": 3},
    {"size": (2.0, 3)},
    {"stride": (4, 1)},
    {"stride": (-3, 1)},
    {"stride": (2**62, 1)},
    {"stride": (1,)},
    {"storage": "other"},
  ],
)
def test_tensors_that_leave_their_storage_are_refused(tmp_path, change):
  _hostile(tmp_path, {})
  weight_files.open_weights(tmp_path)
  _hostile(tmp_path, change)
  with pytest.raises(WeightFileError):
    weight_files.open_weights(tmp_path)


def _rewritten(path, change, **options):
  """The archive again, its members changed."""
  with zipfile.ZipFile(path) as archive:
    members = [(info.filename, archive.read(info)) for info in archive.filelist]
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    with zipfile.ZipFile(path, "w", **options) as archive:
      for name, content in change(members):
        archive.writestr(name, content)


def _replaced(ending, content):
  return lambda members: [
    (n, content if n.endswith(ending) else c) for n, c in members
  ]


@pytest.mark.parametrize(
  ("change", "options", "message"),
  [
    (lambda m: m + [m[-1]], {}, "twice"),
    (lambda m: [*m, ("/etc/passwd", b"x")], {}, "beside"),
    (lambda m: [*m, ("../secret", b"x")], {}, "beside"),
    (lambda m: m, {"compression": zipfile.ZIP_DEFLATED}, "compressed"),
    (lambda m: [x for x in m if "data.pkl" not in x[0]], {}, "data.pkl"),
    (lambda m: [x for x in m if "/data/" not in x[0]], {}, "no storage"),
    (_replaced("/data/0", b"short"), {}, "5 bytes"),
    (_replaced("byteorder", b"big"), {}, "big-endian"),
    (_replaced("data.pkl", b"(" * unpickle.MAX_PICKLE + b"."), {}, "damaged"),
  ],
)
def test_archives_that_pytorch_does_not_write_are_refused(
  tmp_path, seed, change, options, message
):
  path = _save(tmp_path, _state(seed))
  _rewritten(path, lambda members: members)
  _assert_read(tmp_path, _state(seed))
  _rewritten(path, change, **options)
  with pytest.raises(WeightFileError, match=message):
    weight_files.open_weights(tmp_path)


@pytest.mark.parametrize("zipped", ZIPPED)
def test_a_truncated_file_is_an_error_wherever_it_ends(tmp_path, seed, zipped):
  path = _save(tmp_path, _state(seed), zipped)
  whole = path.read_bytes()
  for kept in [*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1]:
    path.write_bytes(whole[:kept])
    with pytest.raises(WeightFileError, match=NAME):
      weight_files.open_weights(tmp_path)


def test_other_machines_and_older_files_are_refused_by_name(tmp_path, seed):
  path = _save(tmp_path, _state(seed), zipped=False)
  raw = path.read_bytes()
  assert re.search(rb"little_endian.{0,3}\x88", raw, re.DOTALL)
  path.write_bytes(
    re.sub(rb"(little_endian.{0,3})\x88", b"\\1\x89", raw, flags=re.DOTALL)
  )
  with pytest.raises(WeightFileError, match="big-endian"):
    weight_files.open_weights(tmp_path)
  path.write_bytes(bytes(257) + b"ustar" + bytes(300))
  with pytest.raises(WeightFileError, match="tar archive"):
    weight_files.open_weights(tmp_path)
  path.write_bytes(pickle.dumps({"a": 1}, 2))
  with pytest.raises(WeightFileError, match="no weight file of PyTorch"):
    weight_files.open_weights(tmp_path)
