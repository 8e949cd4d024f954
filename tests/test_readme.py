"""The README's library example as it stands, and what it says of labels."""

import pathlib
import re

import jax
import numpy as np
import optax
import pytest
import transformers

from data.tokenizers import training

README = pathlib.Path(__file__).parents[1] / "README.md"
TEXTS = ["A long text.", "Another text, which is longer.", "Short."] * 9
STEPS, LENGTH = 120, 40


@pytest.fixture
def example(tmp_path, monkeypatch):
  """The names that the example leaves, with tiny models for those it names."""
  (code,) = [
    block
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    if "labels=labels" in block
  ]
  sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
  words = training.train_wordpiece(TEXTS, 300)
  bert = transformers.BertConfig(
    vocab_size=words.vocab_size, intermediate_size=64, **sizes
  )
  pieces = training.train_bpe(TEXTS, 300)
  gpt2 = transformers.GPT2Config(
    vocab_size=pieces.vocab_size,
    n_embd=32,
    n_layer=1,
    n_head=2,
    bos_token_id=pieces.eos_id,
    eos_token_id=pieces.eos_id,
  )
  for name, model, tokenizer in (
    ("google-bert/bert-base-uncased", transformers.BertModel(bert), words),
    ("openai-community/gpt2", transformers.GPT2LMHeadModel(gpt2), pieces),
  ):
    folder = tmp_path / name
    model.save_pretrained(folder)
    tokenizer.save(str(folder))
  monkeypatch.chdir(tmp_path)
  names = {}
  exec(compile(code, str(README), "exec"), names)
  assert (tmp_path / "mine/model.safetensors").exists()
  return names


def train(example, labels):
  """What is generated after some updates on these labels."""
  model, batch = example["model"], example["batch"]
  optimizer = optax.adam(1e-2)

  @jax.jit
  def update(params, state):
    loss = lambda p: model(**batch, labels=labels, params=p).loss
    change, state = optimizer.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, change), state

  params, state = model.params, optimizer.init(model.params)
  for _ in range(STEPS):
    params, state = update(params, state)
  generated = model.generate(**batch, max_length=LENGTH, params=params)
  return np.asarray(generated.sequences)


def test_the_example_teaches_the_model_to_stop(example):
  tokenizer, targets = example["target_tokenizer"], example["targets"]
  end, labels = tokenizer.eos_token_id, example["labels"]
  assert [row[row != -100][-1] for row in labels] == [end, end]
  tokens = train(example, labels)
  texts = tokenizer.batch_decode(tokens.tolist(), skip_special_tokens=True)
  assert texts == targets
  # After the start token, which is the end token too.
  assert (tokens[:, 1:] == end).any(axis=1).all()
  endless = train(example, np.where(labels == end, -100, labels))
  assert endless.shape[1] == LENGTH and not (endless[:, 1:] == end).any()


def test_the_tokenizers_differ_in_what_they_put_at_the_end(example):
  """The reason that the example gives."""
  source, target = example["source_tokenizer"], example["target_tokenizer"]
  assert source("short").input_ids[-1] == source.sep_token_id
  assert target.eos_token_id not in target("short").input_ids
