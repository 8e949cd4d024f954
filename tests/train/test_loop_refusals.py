"""What cannot be run is refused by name before anything compiles."""

import pytest

from data.tokenizers import training
from train import loop, start
from train.cli import machine_errors
from train.errors import Refusal


def refuse_file(config, folder):
  config.data.train = f"jsonl:{folder}/none.jsonl"
  return "none.jsonl"


def refuse_field(config, folder):
  config.data.source_field = "article"
  return "article"


def refuse_scheme(config, folder):
  config.data.eval = "valid=huggingface:x@y"
  return "huggingface"


def refuse_test_file(config, folder):
  config.data.test = f"test=jsonl:{folder}/later.jsonl"
  return "later.jsonl"


def refuse_batch(config, folder):
  config.train.batch_size = 12
  return "train.batch_size=12"


def refuse_mesh(config, folder):
  config.mesh.data = 3
  return "mesh.data=3"


def refuse_dimension(config, folder):
  config.mesh.data, config.mesh.tensor = 1, 8
  return "heads"


def refuse_token(config, folder):
  config.model.start_token = "<s>"
  return "model.start_token = '<s>'"


def refuse_length(config, folder):
  config.data.max_source_length = 4096
  return "data.max_source_length = 4096"


def refuse_generation_length(config, folder):
  config.generation.max_length = 4096
  return "generation.max_length = 4096"


def refuse_encoder(config, folder):
  config.model.encoder = "gpt2:tiny"
  return "gpt2"


def refuse_decoder(config, folder):
  (folder / "t5").mkdir()
  (folder / "t5/config.json").write_text('{"model_type": "t5"}')
  config.model.decoder = f"{folder}/t5"
  return "t5"


def refuse_end_token(config, folder):
  """A decoder and a target tokenizer that know no end."""
  tokenizer = training.train_wordpiece(["red blue"] * 9, 300)
  tokenizer.inner.sep_token = tokenizer.inner.cls_token = None
  tokenizer.save(str(folder / "endless"))
  config.model.decoder = "bert:tiny"
  config.data.target_tokenizer = f"{folder}/endless"
  return "model.start_token"


def refuse_preset(config, folder):
  config.model.encoder = "bert:huge"
  return "huge"


def refuse_hub_id(config, folder):
  config.model.encoder = "nobody/no-such-model"
  return "nobody/no-such-model"


def refuse_remat(config, folder):
  config.model.remat = "some"
  return "model.remat = 'some'"


def refuse_attention(config, folder):
  config.model.attention = "flash"
  return "'flash'"


def refuse_best_metric(config, folder):
  config.train.best_metric = "eval/valid/rougel"
  return "did you mean 'eval/valid/rougeL'"


@pytest.mark.parametrize(
  "change",
  [
    refuse_file,
    refuse_field,
    refuse_scheme,
    refuse_test_file,
    refuse_batch,
    refuse_mesh,
    refuse_dimension,
    refuse_token,
    refuse_length,
    refuse_generation_length,
    refuse_encoder,
    refuse_decoder,
    refuse_end_token,
    refuse_preset,
    refuse_hub_id,
    refuse_best_metric,
    refuse_remat,
    refuse_attention,
  ],
)
def test_bad_input_is_refused_before_anything_compiles(
  change, pairs_folder, tiny_config, compilations
):
  named = change(tiny_config, pairs_folder)
  with pytest.raises(Refusal) as caught:
    loop.run(tiny_config, str(pairs_folder / "run"))
  assert named in str(caught.value)
  assert not compilations
  assert not (pairs_folder / "run/config.json").exists()


def test_a_kernel_of_another_platform_is_refused(
  pairs_folder, tiny_config, compilations
):
  tiny_config.model.attention = "cudnn"
  # Scalars of the options are converted when a process makes them first.
  start.build_run(tiny_config, pairs_folder / "other")
  compilations.clear()
  with pytest.raises(
    Refusal, match=r"model\.attention = 'cudnn' cannot serve: .* NVIDIA"
  ):
    loop.run(tiny_config, str(pairs_folder / "run"))
  assert not compilations


def test_a_batch_that_no_memory_holds_is_refused_and_not_made(
  pairs_folder, tiny_config, compilations, monkeypatch
):
  # Scalars of the options are converted when a process makes them first.
  start.build_run(tiny_config, pairs_folder / "other")
  compilations.clear()
  monkeypatch.setattr(machine_errors, "_memory", lambda: 1000)
  with pytest.raises(
    Refusal, match=r"train\.batch_size = \d+: the arrays of a batch"
  ):
    loop.run(tiny_config, str(pairs_folder / "run"))
  assert not compilations


def test_a_start_that_failed_leaves_nothing_behind(pairs_folder, tiny_config):
  run = pairs_folder / "run"
  tiny_config.model.start_token = "<s>"
  with pytest.raises(Refusal):
    loop.run(tiny_config, str(run))
  tiny_config.model.start_token = ""
  tiny_config.data.source_vocab_size = 290
  this = start.build_run(tiny_config, run)
  assert this.task.source_tokenizer.vocab_size <= 290


def test_a_bad_line_stops_or_is_counted(pairs_folder, tiny_config):
  with open(pairs_folder / "pairs.jsonl", "a") as file:
    file.write('{"source": "torn\n')
  with pytest.raises(ValueError, match="line 62"):
    start.build_run(tiny_config, pairs_folder / "run")
  tiny_config.data.on_bad_record = "skip"
  this = start.build_run(tiny_config, pairs_folder / "run")
  assert this.pipeline.pairs.parts[0].counts.skipped_records == 1
