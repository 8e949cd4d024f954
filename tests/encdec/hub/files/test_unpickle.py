"""A hostile pickle is refused, and nothing of it is run."""

import collections
import io
import os
import pickletools
import struct

import pytest
import torch

from encdec.hub.files import unpickle, weight_files
from encdec.hub.files.mmap import WeightFileError

NAME = "pytorch_model.bin"


ZIPPED = [pytest.param(True, id="zip"), pytest.param(False, id="old")]


def _save(folder, value, zipped=True, name=NAME):
  torch.save(value, folder / name, _use_new_zipfile_serialization=zipped)
  return folder / name


class _Calls:
  def __init__(self, called, *arguments):
    self.reduced = called, arguments

  def __reduce__(self):
    return self.reduced


@pytest.mark.parametrize("zipped", ZIPPED)
@pytest.mark.parametrize(
  ("called", "arguments"),
  [
    (os.system, ("touch canary",)),
    (eval, ("open('canary', 'w')",)),
    (exec, ("open('canary', 'w')",)),
    (getattr, (os, "system")),
    (torch.load, ("canary",)),
    (torch._utils._rebuild_sparse_tensor, ("layout", ())),
    (collections.defaultdict, (list,)),
  ],
)
def test_what_a_pickle_calls_is_refused_and_not_run(
  tmp_path, monkeypatch, zipped, called, arguments
):
  monkeypatch.chdir(tmp_path)
  if called is getattr:
    arguments = (collections.OrderedDict, "fromkeys")
  _save(tmp_path, {"t": _Calls(called, *arguments)}, zipped)
  with pytest.raises(WeightFileError, match=r"wants .*nothing was run"):
    weight_files.open_weights(tmp_path)
  assert not (tmp_path / "canary").exists()


def test_the_refusal_names_what_was_wanted(tmp_path):
  _save(tmp_path, {"t": _Calls(os.system, "true")})
  with pytest.raises(WeightFileError, match=r"wants (posix|nt)\.system"):
    weight_files.open_weights(tmp_path)


@pytest.mark.parametrize(
  "value",
  [torch.zeros(3), [torch.zeros(3)], {"state_dict": {"t": torch.ones(2)}}],
)
def test_a_pickle_that_is_no_flat_state_dict_is_refused(tmp_path, value):
  _save(tmp_path, value)
  with pytest.raises(WeightFileError, match="state_dict"):
    weight_files.open_weights(tmp_path)


@pytest.mark.parametrize(
  "code",
  [
    # Memo places that would be allocated; sizes beyond the file.
    b"}r\xff\xff\xff\xff.",
    b"\x8d" + struct.pack("<Q", 1 << 60) + b".",
    b"\x8b" + struct.pack("<i", 1 << 30) + b".",
    b"(" * 1000 + b".",
    b"h\x07.",
    b"R.",
    b"cos\nsystem\n(S'true'\ntR.",
    b"\x8c\x02os\x8c\x06system\x93.",
    b"(S'true'\nios\nsystem\n.",
    b"\x82\x01.",
  ],
)
def test_instructions_that_no_weights_need_are_refused(tmp_path, code):
  # Each is one that Python's own disassembler knows.
  with pytest.raises(WeightFileError):
    unpickle.read_pickle(tmp_path / NAME, io.BytesIO(b"\x80\x02" + code[:-1]))
  if code.startswith((b"c", b"\x8c", b"(S", b"\x82")):
    assert list(pickletools.genops(code))
    with pytest.raises(WeightFileError, match="nothing was run"):
      unpickle.read_pickle(tmp_path / NAME, io.BytesIO(code))


def test_values_that_share_parts_without_end_are_not_printed(tmp_path):
  laughs = b"(lp0\n" + b"".join(
    b"((g%d\ng%d\ntp%d\n0" % (n, n, n + 1) for n in range(60)
  )
  with pytest.raises(WeightFileError) as caught:
    unpickle.read_pickle(tmp_path / NAME, io.BytesIO(laughs + b"g60\n."))
  assert len(str(caught.value)) < 1000


def test_a_text_that_python_warns_of_is_damage(tmp_path):
  """Warnings are errors here, as for users who make them so."""
  path = tmp_path / NAME
  stream = io.BytesIO(b"\x80\x02S'a\\.b'\n.")
  with pytest.raises(WeightFileError, match="damaged pickle"):
    unpickle.read_pickle(path, stream)
