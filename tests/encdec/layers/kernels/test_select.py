"""Which implementation of attention serves a call, and why others do not."""

import jax.numpy as jnp
import pytest
from absl import logging

from encdec.layers.attention import attention
from encdec.layers.kernels import select
from encdec.layers.kernels.facts import AttentionFacts
from encdec.layers.kernels.xla import XlaAttention
from encdec.types import AttentionMask


class Refusing(XlaAttention):
  def refuses(self, facts):
    return "it has no bias" if facts.bias else None


@pytest.fixture
def implementations(monkeypatch):
  """By name; "fussy" comes first, and refuses a bias."""
  table = {"fussy": Refusing(), **select.IMPLEMENTATIONS}
  monkeypatch.setattr(select, "IMPLEMENTATIONS", table)
  select._explain.cache_clear()
  return table


def _facts(bias: bool) -> AttentionFacts:
  return AttentionFacts(
    platform="cpu",
    query_shape=(1, 2, 2, 4),
    key_shape=(1, 3, 2, 4),
    key_blocks=False,
    dtype="float32",
    dense=False,
    bias=bias,
    softcap=False,
    sinks=False,
    weights_dropout=False,
    return_weights=False,
  )


def test_auto_takes_the_first_that_does_not_refuse(
  implementations, monkeypatch
):
  said = []
  monkeypatch.setattr(logging, "info", lambda text, *a: said.append(text % a))
  assert select.select("auto", _facts(False)) is implementations["fussy"]
  assert not said
  for _ in range(2):
    assert select.select("auto", _facts(True)) is implementations["xla"]
  assert said == ["attention: fussy does not serve: it has no bias"]
  del implementations["xla"]
  with pytest.raises(ValueError, match="no attention implementation serves"):
    select.select("auto", _facts(True))


def test_a_named_implementation_raises_its_reason(implementations):
  q = k = v = jnp.ones((1, 2, 2, 4))
  bias = jnp.zeros((1, 2, 2, 2))
  mask = AttentionMask()

  def attend(**options):
    return attention(q, k, v, mask, scale=1.0, platform="cpu", **options)

  with pytest.raises(ValueError, match="'fussy' refuses: it has no bias"):
    attend(bias=bias, implementation="fussy")
  attend(implementation="fussy")
  attend(bias=bias)
  with pytest.raises(ValueError, match="'flesh' is not one of auto, fussy, x"):
    attend(implementation="flesh")
