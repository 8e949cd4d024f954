"""Which implementation of attention serves a call, and why others do not."""

import dataclasses

import jax.numpy as jnp
import pytest
from absl import logging

from encdec.layers.attention import attention
from encdec.layers.kernels import select
from encdec.layers.kernels.facts import AttentionFacts
from encdec.layers.kernels.xla import XlaAttention
from encdec.types import AttentionMask, RowLayout


class Refusing(XlaAttention):
  def refuses(self, facts):
    return "it has no bias" if facts.bias else None


@pytest.fixture
def implementations(monkeypatch):
  """By name; "fussy" comes first, and refuses a bias."""
  table = {"fussy": Refusing(), **select.IMPLEMENTATIONS}
  monkeypatch.setattr(select, "IMPLEMENTATIONS", table)
  select._print_choice.cache_clear()
  select._print_reason.cache_clear()
  return table


def _facts(bias: bool) -> AttentionFacts:
  return AttentionFacts(
    platform="cpu",
    query_shape=(1, 2, 2, 4),
    key_shape=(1, 3, 2, 4),
    key_blocks=False,
    dtype="float32",
    causal=False,
    window=(None, None),
    positions=False,
    segments=False,
    row_layout=RowLayout.ANY,
    dense=False,
    bias=bias,
    softcap=False,
    sinks=False,
    weights_dropout=False,
    return_weights=False,
    mesh=False,
    rules=False,
    shards=(1, 1, 1),
  )


def test_auto_takes_the_first_that_does_not_refuse(
  implementations, monkeypatch
):
  """What it takes, and why not another, is printed once."""
  said = []
  monkeypatch.setattr(logging, "info", lambda text, *a: said.append(text % a))
  for _ in range(2):
    assert select.select("auto", _facts(False)) is implementations["fussy"]
  assert said == ["attention: fussy serves queries and keys of other numbers"]
  for _ in range(2):
    assert select.select("auto", _facts(True)) is implementations["xla"]
  assert "attention: fussy is not taken: it has no bias" in said
  assert said[-1] == "attention: xla serves queries and keys of other numbers"
  assert len(said) == len(set(said))
  del implementations["xla"]
  with pytest.raises(ValueError, match="no attention implementation serves"):
    select.select("auto", _facts(True))


@pytest.mark.parametrize(
  "name, changes",
  [
    ("short", {}),
    ("splash", {"query_shape": (2, 1024, 2, 64)}),
    ("splash", {"key_shape": (2, 512, 1, 64)}),
    ("xla", {"platform": "cpu"}),
    ("xla", {"key_shape": (2, 127, 2, 64)}),
    ("xla", {"rules": False}),
    ("xla", {"dense": True}),
  ],
)
def test_auto_takes_the_kernel_where_it_is_worth_it(name, changes):
  facts = dataclasses.replace(
    _facts(False),
    platform="tpu",
    query_shape=(2, 128, 2, 64),
    key_shape=(2, 512, 2, 64),
    rules=True,
  )
  facts = dataclasses.replace(facts, **changes)
  assert select.select("auto", facts) is select.IMPLEMENTATIONS[name]


def test_a_named_implementation_raises_its_reason(implementations):
  q = k = v = jnp.ones((1, 2, 2, 4))
  bias = jnp.zeros((1, 2, 2, 2))
  mask = AttentionMask()

  def attend(**options):
    return attention(q, k, v, mask, scale=1.0, platform="cpu", **options)

  with pytest.raises(ValueError, match="'fussy' cannot serve: it has no bias"):
    attend(bias=bias, implementation="fussy")
  attend(implementation="fussy")
  attend(bias=bias)
  with pytest.raises(ValueError, match="'flesh' is not one of auto, fussy, s"):
    attend(implementation="flesh")
