"""Which values the section `optim` may have."""

import dataclasses

import pytest

from tests.train.optim.bases import BASE


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      {"name": "adamm"},
      "optim.name='adamm' is unknown; it is one of adamw, adam",
    ),
    ({"schedule": "cosin"}, "optim.schedule='cosin' is unknown; .*cosine"),
    ({"b2": 1.0}, r"optim.b2=1.0 must lie in"),
    ({"lr": -1e-3}, "optim.lr=-0.001 must be"),
    ({"lr": float("nan")}, "optim.lr=nan must be"),
    ({"eps": 0.0}, "optim.eps=0.0 must be positive"),
    ({"clip_norm": -1.0}, "optim.clip_norm=-1.0 must be"),
    ({"decay_steps": -1}, "optim.decay_steps=-1 must be"),
    ({"momentum": 1.0}, r"optim.momentum=1.0 must lie in"),
    ({"momentum": -0.5}, r"optim.momentum=-0.5 must lie in .*-1.0"),
    ({"schedule": "wsd"}, "optim.decay_steps=0: .*'wsd'"),
    ({"decay_steps": 9}, "optim.decay_steps=9: .*has none.*'wsd'"),
    ({"momentum": 0.5}, "optim.momentum=0.5: optim.name='adamw' has none"),
    (
      {"name": "adam", "weight_decay": 0.1},
      "optim.weight_decay=0.1: optim.name='adam' .*'adamw'",
    ),
  ],
)
def test_wrong_values_are_refused_by_name(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(BASE, **change)


def test_a_group_has_a_decay_where_its_schedule_has_one():
  group = "encoder/*: schedule=wsd"
  optim = dataclasses.replace(
    BASE, schedule="constant", decay_steps=3, groups=(group,)
  )
  found = optim.by_pattern()
  assert found["encoder/*"].decay_steps == 3
  others = dataclasses.replace(
    BASE, schedule="wsd", decay_steps=3, groups=("encoder/*: schedule=linear",)
  )
  assert others.by_pattern()["encoder/*"].decay_steps == 0
