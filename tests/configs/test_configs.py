"""Each configuration starts from common.py, and each has a smoke variant."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest

from configs import common
from train import start, validate
from train.mesh import MeshConfig, make_mesh, sharding_rules
from train.text_generator import rows_per_batch

FILES = sorted(
  path
  for path in Path("configs").glob("*.py")
  if path.stem not in ("__init__", "common", "smoke")
)


def load(path: Path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
@pytest.mark.parametrize("arg", ["", "smoke"])
def test_every_config_has_every_key_and_passes(path, arg):
  config = load(path).get_config(arg)
  expected = validate.flatten(common.get_config())
  flat = validate.flatten(config)
  assert list(flat) == list(expected)
  for key, value in expected.items():
    assert type(flat[key]) is type(value), key
  validate.check_values(config)


class Passed(Exception):
  """All that the number of devices decides was checked."""


@dataclasses.dataclass(frozen=True)
class FakeDevice:
  """As much of a device as laying out a mesh needs."""

  id: int
  process_index: int = 0
  platform: str = "gpu"
  device_kind: str = "fake"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
@pytest.mark.parametrize(
  ("arg", "most"), [("", 16), ("smoke", 8), ("pod", 128)]
)
def test_every_variant_starts_on_few_devices_and_many(
  path, arg, most, tmp_path, monkeypatch
):
  with pytest.raises(ValueError) as refused:
    load(path).get_config("none")
  variants = re.findall(r"\w+", str(refused.value).partition("are:")[2])
  if arg and arg not in variants:
    assert arg == "pod"
    return
  config = load(path).get_config(arg)

  def passed(*_):
    raise Passed

  monkeypatch.setattr(start.datasets, "check", passed)
  for count in [2**n for n in range(8) if 2**n <= most]:
    mesh = make_mesh(
      MeshConfig(**config.mesh.to_dict()), [FakeDevice(n) for n in range(count)]
    )
    monkeypatch.setattr(start, "make_mesh", lambda sizes, mesh=mesh: mesh)
    with pytest.raises(Passed):
      start.build_run(config, tmp_path / "run")
    rows = rows_per_batch(config, mesh, sharding_rules(config))
    assert rows % count == 0 and 0 <= rows - config.eval.batch_size < count


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_smoke_is_small_and_needs_no_network(path):
  config = load(path).get_config("smoke")
  assert config.train.steps <= 10
  for side in ("encoder", "decoder"):
    assert validate.is_preset(config.model[side])
    assert config.model[f"{side}_init"] == "random"
  uris = config.data.train, config.data.eval, config.data.test
  assert all(re.search(r"(^|=)(pydoc|dates)@", uri) for uri in uris)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_an_unknown_variant_is_refused_by_name(path):
  with pytest.raises(ValueError, match="smok: the variants are"):
    load(path).get_config("smok")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_hyper_names_keys_that_exist(path):
  module = load(path)
  if not hasattr(module, "get_hyper"):
    return
  flat = validate.flatten(module.get_config())
  members = module.get_hyper()
  assert members
  for member in members:
    for key, value in member.items():
      assert type(flat[key]) is type(value), key


def test_every_key_of_common_has_a_comment():
  lines = Path("configs/common.py").read_text().splitlines()
  commented = False
  for line in lines:
    if re.match(r"  #", line):
      commented = True
    elif not line.strip() or " = ConfigDict()" in line:
      commented = False
    elif re.match(r"  (?!sharding)\w+\.\w+ = ", line):
      assert commented, f"no comment above or in the group of {line.strip()}"


def test_a_key_that_common_lacks_cannot_be_set():
  config = common.get_config()
  with pytest.raises(AttributeError, match='mean "batch_size"'):
    config.train.bach_size = 3
