"""Groups of parameters by path: how they are written, and what is refused."""

import dataclasses

import pytest

from tests.train.optim.bases import BASE
from train.optim import groups

PATHS = (
  "encoder/embeddings/tokens/embedding",
  "encoder/layers/mlp/up/kernel",
  "decoder/layers/cross_attention/query/kernel",
  "decoder/layers/cross_attention_norm/scale",
  "decoder/layers/mlp/up/kernel",
)


def test_a_group_is_a_glob_and_settings():
  one, two, three = groups.parse(
    (
      "encoder/*: lr=2e-3, warmup_steps=20,schedule=rsqrt",
      "*/cross_attention*:frozen_steps=5",
      " decoder/layers/mlp/* : frozen = true ",
    )
  )
  assert one.settings == {
    "lr": 2e-3,
    "warmup_steps": 20,
    "schedule": "rsqrt",
  }
  assert (one.frozen, one.frozen_steps) == (False, 0)
  assert (two.frozen, two.frozen_steps) == (False, 5)
  assert (three.pattern, three.frozen) == ("decoder/layers/mlp/*", True)
  found = [groups.group_of(path, (one, two, three)) for path in PATHS]
  assert found == [one, one, two, two, three]
  assert groups.group_of("enc_to_dec_proj/kernel", (one, two, three)) is None
  groups.check((one, two, three), PATHS)


def test_settings_take_the_place_of_the_sections():
  config = dataclasses.replace(
    BASE,
    groups=("encoder/*: b1=0.5, lr_scale=0.1", "*/head/*: lr=3, eps=0.25"),
  )
  found = config.by_pattern()
  assert found[""] == config
  assert found["encoder/*"] == dataclasses.replace(
    BASE, b1=0.5, lr=0.1 * BASE.lr
  )
  assert found["*/head/*"] == dataclasses.replace(BASE, lr=3.0, eps=0.25)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("encoder/*", "'encoder/.*' is no group; write 'pattern: setting=value"),
    ("encoder/*:", "has no setting ''; it is one of lr, lr_scale"),
    ("encoder/*: rate=3", "has no setting 'rate'; it is one of lr"),
    ("encoder/*: lr", "lr must be a number.*, not ''"),
    ("encoder/*: lr=fast", "lr must be a number.*, not 'fast'"),
    ("encoder/*: lr=nan", "lr must be a number.*, not 'nan'"),
    ("encoder/*: lr_scale=-1", "lr_scale must be a number from 0.*, not '-1'"),
    (
      "encoder/*: warmup_steps=1.5",
      "warmup_steps must be a whole.*, not '1.5'",
    ),
    ("encoder/*: frozen_steps=-1", "frozen_steps must be a whole.*, not '-1'"),
    ("encoder/*: frozen=yes", "frozen must be true or false.*, not 'yes'"),
    ("encoder/*: lr=1, lr=2", "sets lr twice"),
    ("encoder/*: lr=1, lr_scale=2", "sets lr and lr_scale; set one"),
    ("encoder/*: frozen=true, lr=1", "is frozen, so that nothing else"),
    ("encoder/*: schedule=cosin", "'encoder/.*': optim.schedule='cosin'"),
    ("encoder/*: b2=1", "'encoder/.*': optim.b2=1.0 must lie in"),
    ("encoder/*: schedule=wsd", "'encoder/.*': optim.decay_steps=0"),
  ],
)
def test_what_is_no_group_is_refused(text, message):
  with pytest.raises(ValueError, match=f"^optim.groups: .*{message}") as caught:
    dataclasses.replace(BASE, groups=(text,))
  assert "\n" not in str(caught.value)


def test_a_number_is_no_group():
  with pytest.raises(ValueError, match=r"^optim.groups: 3 is no group"):
    groups.parse((3,))


def test_a_setting_that_the_optimizer_does_not_read_is_refused():
  with pytest.raises(ValueError, match=r"optim.groups: .*'sgd' has no b1"):
    dataclasses.replace(BASE, name="sgd", groups=("encoder/*: b1=0.5",))


@pytest.mark.parametrize(
  ("texts", "message"),
  [
    (("encoders/*: lr=1",), "'encoders/.*' matches no parameter.*such as dec"),
    (
      ("encoder/*: lr=1", "*/mlp/*: lr=2"),
      "'encoder/.*' and '.*/mlp/.*' both match 'encoder/layers/mlp/up/kernel'",
    ),
    (("*: frozen=true",), "freezes every parameter"),
    (
      ("encoder/*: frozen=true", "decoder/*: frozen_steps=3"),
      "freezes every parameter",
    ),
  ],
)
def test_groups_must_fit_the_model(texts, message):
  with pytest.raises(ValueError, match=f"^optim.groups.*{message}") as caught:
    groups.check(groups.parse(texts), PATHS)
  assert "\n" not in str(caught.value)
