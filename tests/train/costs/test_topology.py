"""Topologies that are not known are refused before a compiler is asked."""

import types

import pytest

from train.costs import topology


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("", "''.* is no topology"),
    ("v5e", "write a kind of chip and the shape of a slice"),
    ("v5e:4by4", "is no topology"),
    ("v9:2x2", r"the chip 'v9' is not known.*v5e:4x4.*tpu7x:2x2x1"),
    ("v5e:32x16", "512 chips, more than a slice of v5e has: at most 256"),
    ("h200:2x4", "write how many GPUs, 1 to 8 or whole hosts.*h200:16"),
    ("h100:0", "write how many GPUs"),
    ("h100:12", "whole hosts of 8 up to 16384, such as h100:8 or h100:16"),
    ("b200:8", r"the chip 'b200' is not known.*h100:8, h200:8"),
  ],
)
def test_what_is_no_topology_is_refused(name, message):
  with pytest.raises(ValueError, match=message):
    topology.devices(name)


@pytest.mark.parametrize("name", ["h200:1", "h100:16"])
def test_gpus_that_are_not_here_have_no_attention_of_cudnn(name):
  assert topology.attention(name, "auto") == "xla"
  assert topology.attention(name, "xla") == "xla"
  with pytest.raises(ValueError, match=r"model.attention='cudnn' cannot .*xla"):
    topology.attention(name, "cudnn")
  # TPUs' kernels compile without a TPU.
  assert topology.attention("v5e:2x2", "auto") == "auto"


def test_a_missing_compiler_is_named_with_its_extra(monkeypatch):
  def missing(**options):
    raise NotImplementedError("topology not implemented for cuda")

  monkeypatch.setattr(topology.topologies, "get_topology_desc", missing)
  with pytest.raises(ValueError, match=r"needs CUDA's .*encdec\[aot-cuda\]"):
    topology.devices("h200:8")


def test_a_compiler_of_another_version_is_told_from_a_missing_one(monkeypatch):
  def fails(**options):
    raise RuntimeError("no such field\nand more")

  monkeypatch.setattr(topology.topologies, "get_topology_desc", fails)
  with pytest.raises(ValueError, match=r"\(no such field\).*jax's own version"):
    topology.devices("h200:8")


@pytest.mark.parametrize(
  ("name", "slices", "layout"),
  [("h200:1", 1, "1x1x1"), ("h100:8", 1, "1x1x8"), ("h200:16", 2, "2x2x8")],
)
def test_gpus_are_laid_out_as_hosts_of_eight(monkeypatch, name, slices, layout):
  asked = {}

  def topology_of(**options):
    asked.update(options)
    return types.SimpleNamespace(devices=["a device"])

  monkeypatch.setattr(topology.topologies, "get_topology_desc", topology_of)
  assert topology.devices(name, slices) == ["a device"]
  assert (asked["platform"], asked["topology"]) == ("cuda", layout)


@pytest.mark.parametrize(
  ("name", "bounds"),
  [("v5e:1x1", [1, 1, 1]), ("v4:1x1x1", [1, 1, 1]), ("v5e:1x4", None)],
)
def test_one_chip_is_a_host_of_its_own(monkeypatch, name, bounds):
  asked = {}

  def record(**options):
    asked.update(options)
    return types.SimpleNamespace(devices=[])

  monkeypatch.setattr(topology.topologies, "get_topology_desc", record)
  topology.devices(name)
  assert asked.get("chips_per_host_bounds") == bounds
