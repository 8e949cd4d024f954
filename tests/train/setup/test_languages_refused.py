"""Languages that a run cannot have are refused with the key to set."""

import pytest

from tests import translators
from train.errors import Refusal
from train.setup.task import build_task

# Marian's tokenizer asks for a package that is not needed here.
pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacre")


def test_a_language_of_no_tokenizer_is_refused(tiny_config, tmp_path):
  config = tiny_config
  for kind in ("source", "target"):
    config.data[f"{kind}_language"] = "de_DE"
    with pytest.raises(
      Refusal,
      match=rf"data\.{kind}_language = 'de_DE'.*data\.{kind}_tokenizer",
    ):
      build_task(config, tmp_path / "run")
    config.data[f"{kind}_language"] = ""
  config.data.target_tokenizer = translators.save("marian", tmp_path / "marian")
  config.data.target_language = "de"
  with pytest.raises(ValueError, match=r"data\.target_language = 'de'.*''"):
    build_task(config, tmp_path / "run")
