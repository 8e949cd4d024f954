"""Runs whose target tokenizer has a mode of its own, up to PyTorch's texts."""

import json
import re
from typing import Any

import pytest
import torch
import transformers
from transformers.models.marian import modeling_marian
from transformers.models.mbart import modeling_mbart

from data.pipeline import eval_batches
from encdec import hub
from encdec.model import param_shapes
from tests import translators
from tests.translators import ENGLISH, GERMAN, LANGUAGES
from train import loop
from train.errors import Refusal
from train.modes import export, predict
from train.setup import datasets, trained
from train.setup.task import build_task, record_task, restore_task

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacre")


def _decoder(kind: str, folder) -> str:
  """A tiny model as the Hub has it, with its tokenizer; gives its folder."""
  name = translators.save(kind, folder)
  size = len(transformers.AutoTokenizer.from_pretrained(name))
  shape: dict[str, Any] = {
    f"{side}_{key}": value
    for side in ("encoder", "decoder")
    for key, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 64))
  }
  shape |= {"d_model": 32, "max_position_embeddings": 64, "vocab_size": size}
  if kind == "marian":
    model = transformers.MarianMTModel(
      transformers.MarianConfig(
        **shape,
        decoder_vocab_size=size,
        eos_token_id=0,
        forced_eos_token_id=None,
        pad_token_id=size - 1,
        decoder_start_token_id=size - 1,
      )
    )
  else:
    config = transformers.MBartConfig(**shape, forced_eos_token_id=None)
    model = transformers.MBartForConditionalGeneration(config)
  model.save_pretrained(name)
  return name


@pytest.fixture
def translation(tiny_config, tmp_path):
  """`translation(kind, both)`: the configuration of a run of that decoder.

  With `both` the encoder reads the decoder's tokenizer too.
  """

  def make(kind, both=True):
    config = tiny_config
    with open(tmp_path / "translations.jsonl", "w") as file:
      for source, target in zip(ENGLISH, GERMAN, strict=True):
        file.write(json.dumps({"source": source, "target": target}) + "\n")
    uri = f"jsonl:{tmp_path}/translations.jsonl"
    config.data.train, config.data.eval = uri, f"valid={uri}@all[:21]"
    config.model.encoder = "bert:tiny"
    config.model.decoder = _decoder(kind, tmp_path / kind)
    config.model.init_std = 0.5
    config.data.max_source_length = config.data.max_target_length = 40
    config.generation.max_length = 12
    config.data.target_language = LANGUAGES[kind][1]
    if both:
      config.data.source_tokenizer = config.model.decoder
      config.data.source_language = LANGUAGES[kind][0]
    return config

  return make


def _theirs(config):
  """transformers' tokenizer of the decoder, in the run's languages."""
  names = ("source", "target")
  source, target = (config.data[f"{name}_language"] for name in names)
  options = {"src_lang": source or None, "tgt_lang": target} if target else {}
  return transformers.AutoTokenizer.from_pretrained(
    config.model.decoder, **options
  )


def _forced(config, task):
  """The first token of every text that the run generates."""
  settings = task.generation_settings(config)
  return settings.options.get("forced_bos_token_id")


def _check_inputs(kind, config, folder, theirs):
  """The batches of a run are what PyTorch's class makes of the same labels."""
  task = restore_task(config, folder)
  sets = datasets.held_out(config, task, folder, config.data.eval)
  every = eval_batches(sets["valid"], 8, datasets.buckets(config))
  batch = next(iter(every)).arrays
  ids = theirs(text_target=GERMAN[:8], padding=True, return_tensors="pt")
  labels, pad = ids["input_ids"], theirs.pad_token_id
  if kind == "marian":
    start = task.batch_tokens.start
    inputs = modeling_marian.shift_tokens_right(labels, pad, start)
  else:
    inputs = modeling_mbart.shift_tokens_right(labels, pad)
  length = labels.shape[1]
  used = ids["attention_mask"].numpy()
  for name, want in (("targets", labels), ("inputs", inputs)):
    got = batch[f"decoder_{name}"][:, :length]
    assert (got * used == want.numpy() * used).all(), name
  assert (batch["decoder_weights"][:, :length] == used).all()
  return task


@pytest.mark.sample(1, group="exported runs")
@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize(
  ("kind", "both", "start", "first"),
  [
    ("marian", True, "<pad>", None),
    ("mbart", True, "de_DE", None),
    ("mbart50", False, "</s>", "de_DE"),
  ],
)
def test_pytorch_reads_and_writes_what_the_run_did(
  kind,
  both,
  start,
  first,
  translation,
  tmp_path,
  assert_pytorch_generates,
  monkeypatch,
  capsys,
):
  config, run, hub = translation(kind, both), tmp_path / "run", tmp_path / "hub"
  loop.run(config, str(run))
  theirs = _theirs(config)
  task = _check_inputs(kind, config, run, theirs)
  ids = theirs.convert_tokens_to_ids
  assert task.tokens.start == ids(start)
  first_id = None if first is None else ids(first)
  assert _forced(config, task) == first_id

  export.run(config, str(run), step=4, output=str(hub))
  options = json.loads((hub / "generation_config.json").read_text())
  assert options.get("forced_bos_token_id") == first_id
  assert options["decoder_start_token_id"] == ids(start)
  assert (hub / "target_tokenizer").exists() == (not both)
  model = assert_pytorch_generates(hub, run / "samples/valid-00000004.jsonl")
  load = transformers.AutoTokenizer.from_pretrained
  source = load(str(hub))
  target = source if both else load(str(hub / "target_tokenizer"))
  labels = theirs(text_target=GERMAN)["input_ids"]
  assert target(text_target=GERMAN)["input_ids"] == labels
  assert target.batch_decode(labels, skip_special_tokens=True) == GERMAN

  (tmp_path / "in.txt").write_text("\n".join(ENGLISH[:5]) + "\n")
  predict.run(
    config,
    str(run),
    step=4,
    source=str(tmp_path / "in.txt"),
    output=str(tmp_path / "out.jsonl"),
  )
  lines = (tmp_path / "out.jsonl").read_text().splitlines()
  batch = source(ENGLISH[:5], padding=True, return_tensors="pt")
  with torch.no_grad():
    tokens = model.generate(
      batch["input_ids"], attention_mask=batch["attention_mask"]
    )
  assert [json.loads(line)["prediction"] for line in lines] == (
    target.batch_decode(tokens, skip_special_tokens=True)
  )
  if first is not None:
    assert (tokens[:, 1] == first_id).all()

  card = (hub / "README.md").read_text()
  assert ("use_source_tokenizer=False" in card) == (kind == "marian")
  monkeypatch.chdir(hub)
  printed = []
  for snippet in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
    capsys.readouterr()
    exec(snippet, {})
    printed.append(capsys.readouterr().out)
  assert len(printed) == 2 and printed[0] == printed[1] != ""

  french = LANGUAGES[kind][2]
  with pytest.raises(Refusal, match=r"data\.target_language: .*fr_XX"):
    config.data.target_language = "fr_XX"
    trained.load(config, str(run))
  # A run that starts from the export goes on in its language, or in another.
  config.model.pair, config.data.source_tokenizer = str(hub), ""
  for language in ("", french):
    config.data.target_language = language
    new = build_task(config, tmp_path / f"pair{language}")
    code = ids(language or LANGUAGES[kind][1])
    assert new.tokens.start == (code if kind == "mbart" else ids(start))
    assert _forced(config, new) == (None if first is None else code)
    around = (*new.target_tokenizer.prefix, *new.target_tokenizer.suffix)
    assert kind == "marian" or code in around


@pytest.mark.parametrize(
  ("kind", "decoder", "start", "first"),
  [
    ("marian", "marian:tiny", "<pad>", None),
    ("mbart", "bert:tiny", "de_DE", None),
    ("mbart", "mbart:tiny", "de_DE", None),
    ("mbart50", "mbart:tiny", "</s>", "de_DE"),
    ("nllb", "bert:tiny", "</s>", "deu_Latn"),
    ("nllb", "bart:tiny", "</s>", "deu_Latn"),
    ("m2m100", "bart:tiny", "</s>", "__de__"),
  ],
)
def test_a_preset_starts_as_its_tokenizer_says(
  kind, decoder, start, first, tiny_config, tmp_path
):
  config = tiny_config
  config.model.decoder = decoder
  config.data.target_tokenizer = translators.save(kind, tmp_path / kind)
  config.data.target_language = LANGUAGES[kind][1]
  task = build_task(config, tmp_path / "run")
  ids = task.target_tokenizer.inner.convert_tokens_to_ids
  assert task.tokens.start == ids(start)
  assert task.tokens.end == (ids("</s>"),)
  assert _forced(config, task) == (None if first is None else ids(first))
  # What the run keeps has the languages; the configuration is not asked again.
  record_task(task, tmp_path / "run")
  (tmp_path / "run/config.json").write_text("{}")
  config.data.target_language = ""
  again = build_task(config, tmp_path / "run")
  assert _forced(config, again) == _forced(config, task)
  for side in ("source_tokenizer", "target_tokenizer"):
    fingerprints = [getattr(t, side).fingerprint for t in (task, again)]
    assert fingerprints[0] == fingerprints[1]
  # The code as the start token is not forced after itself.
  if first is not None:
    config.data.target_language = LANGUAGES[kind][1]
    config.model.start_token = first
    coded = build_task(config, tmp_path / "coded")
    assert coded.tokens.start == ids(first)
    assert _forced(config, coded) is None


def test_the_classs_start_goes_before_a_files(translation, tmp_path):
  """As `shift_tokens_right` of mBART, which reads no file."""
  config = translation("mbart")
  path = tmp_path / "mbart/generation_config.json"
  values = json.loads(path.read_text()) | {"decoder_start_token_id": 0}
  path.write_text(json.dumps(values))
  task = build_task(config, tmp_path / "run")
  ids = task.target_tokenizer.inner.convert_tokens_to_ids
  assert task.tokens.start == ids("de_DE")
  assert "the target's language" in task.tokens.table()
  config.data.target_language = ""
  other = build_task(config, tmp_path / "other")
  assert other.tokens.start == ids("en_XX")
  # A run's own word goes before both.
  config.model.start_token = "</s>"
  assert build_task(config, tmp_path / "own").tokens.start == ids("</s>")


@pytest.mark.parametrize("kind", ["marian", "mbart"])
def test_sides_share_the_embeddings_of_one_tokenizer(
  kind, tiny_config, tmp_path
):
  """Its modes differ, and its ids mean the same in both."""
  config = tiny_config
  config.model.share = "embeddings"
  config.model.encoder = config.model.decoder = "bert:tiny"
  folder = translators.save(kind, tmp_path / kind)
  config.data.source_tokenizer = config.data.target_tokenizer = folder
  config.data.source_language, config.data.target_language, _ = LANGUAGES[kind]
  config.model.start_token = "</s>"
  task = build_task(config, tmp_path / "run")
  ids = [
    tokenizer.encode_batch(GERMAN[:1])
    for tokenizer in (task.source_tokenizer, task.target_tokenizer)
  ]
  assert ids[0] != ids[1]
  if kind == "marian":
    folder = translators.save(kind, tmp_path / "two", separate_vocabs=True)
    config.data.source_tokenizer = config.data.target_tokenizer = folder
    with pytest.raises(Refusal, match=r"'embeddings' \(model\.share\)"):
      build_task(config, tmp_path / "other")


def test_a_run_that_tokenised_targets_as_sources_is_refused(
  tiny_config, tmp_path
):
  config, run = tiny_config, tmp_path / "run"
  config.data.target_tokenizer = translators.save("mbart50", tmp_path / "mbart")
  config.data.source_language, config.data.target_language = "en_XX", "de_DE"
  config.data.source_tokenizer = config.data.target_tokenizer
  task = build_task(config, run)
  record_task(task, run)
  assert restore_task(config, run).tokens == task.tokens
  # As an earlier version wrote it.
  values = json.loads((run / "model.json").read_text())
  del values["target_mode"]
  (run / "model.json").write_text(json.dumps(values))
  with pytest.raises(Refusal, match="its targets as sources: train"):
    restore_task(config, run)


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["mbart", "mbart50"])
def test_a_first_token_of_another_language_is_not_kept(
  kind, translation, random_params, tmp_path
):
  """A saved pair forces what its last texts began with."""
  config, folder = translation(kind), tmp_path / "hub"
  german, french = _theirs(config).convert_tokens_to_ids(["de_DE", "fr_XX"])
  task = build_task(config, tmp_path / "run")
  hub.save_folder(
    folder,
    random_params(param_shapes(task.module), 0.02),
    task.hub_config,
    tokens=task.tokens,
    generation={"forced_bos_token_id": french},
    source_tokenizer=task.source_tokenizer,
    target_tokenizer=task.target_tokenizer,
  )
  config.model.pair = str(folder)
  config.data.source_tokenizer = config.data.target_language = ""
  with pytest.raises(
    Refusal, match=r"fr_XX .*writes de_DE: set data\.target_language"
  ):
    build_task(config, tmp_path / "other")
  for language, code in (("fr_XX", french), ("de_DE", german)):
    config.data.target_language = language
    task = build_task(config, tmp_path / language)
    assert _forced(config, task) == (None if kind == "mbart" else code)
