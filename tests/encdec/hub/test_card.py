"""A model card whose front matter and tables no text can end."""

import pytest
import yaml

from encdec.hub.card import MARK, Card, render


def _front(text):
  return yaml.safe_load(text.split("---")[1])


def test_names_cannot_leave_the_front_matter(tiny_config):
  name = 'a"\nlicense: mine\n---'
  card = render(Card(base_models=[name]), tiny_config, None)
  front = yaml.safe_load(card[4 : card.index(MARK)].rsplit("---", 1)[0])
  assert front["base_model"] == [name] and "license" not in front
  assert "base_model" not in _front(render(Card(), tiny_config, None))


def test_values_cannot_leave_their_row(tiny_config):
  card = render(Card(recipe={"lr": "1 | 2\n3"}), tiny_config, None)
  assert "| lr | 1 \\| 2 3 |" in card


@pytest.mark.parametrize("target", [False, True])
def test_the_example_reads_the_tokenizers_that_there_are(tiny_config, target):
  card = render(
    Card(), tiny_config, None, tokenizer=True, target_tokenizer=target
  )
  assert ("subfolder=" in card) == target
  assert "AutoTokenizer" not in render(Card(), tiny_config, None)
