"""Every key of a configuration, once, with a neutral default.

An experiment's file calls `get_config()` here and changes values. The result
is locked: a key that is not on this page cannot be set, neither in a file nor
on the command line. Values are str, int, float, bool and tuples of them, and
a default has the type that an override must have. An empty string or tuple,
0 and -1 mean "not set"; what then happens stands beside the key.
"""

from typing import Any

from ml_collections import ConfigDict


# Any: a type checker would take each value for a union of all types.
def get_config() -> Any:
  """The neutral configuration; what an experiment must set is empty."""
  config = ConfigDict()
  # Seed of initialisation, dropout and the order of the examples.
  config.seed = 0
  config.model = _model()
  config.data = _data()
  config.train = _train()
  config.optim = _optim()
  config.generation = _generation()
  config.eval = _eval()
  config.mesh = _mesh()
  config.sharding = _sharding()
  return config.lock()


def _model() -> Any:
  """What is computed."""
  model = ConfigDict()
  _set_sides(model)
  # Of computation and of storage: "float32" or "bfloat16".
  model.dtype = "float32"
  model.param_dtype = "float32"
  # What the backward pass recomputes. "none": nothing; "full": all; names of a
  # layer's values ("qkv", "ctx", "out", "mlp") joined by "+": all but those.
  # "ctx+host:mlp" stores the last one in the host's memory, on accelerators.
  model.remat = "none"
  # Layers unrolled in one iteration of the scan.
  model.scan_unroll = 1
  # Rank of adapters (LoRA, Hu et al. 2021), which alone are trained; 0: none.
  # The base is no part of checkpoints, and is read again by each command.
  model.lora_rank = 0
  # An adapter's product is multiplied by lora_alpha / lora_rank; 0.0: by 1.
  model.lora_alpha = 0.0
  # Which kernels of layers: patterns of paths without "/kernel", such as
  # "decoder/*/mlp/up"; "*" matches "/" too.
  model.lora_targets = ("*/query", "*/value")
  # Lengths of a kernel's columns are trained apart (Liu et al. 2024, DoRA).
  model.lora_dora = False
  # Patterns of paths that are trained whole, without adapters: what no
  # checkpoint brings, such as a new cross-attention, or a head that is drawn
  # ("decoder/head/*"). So is a projection between two widths always. What is
  # frozen and random is drawn again by each command: its checkpoints can only
  # be read on the kind of machine that wrote them.
  model.lora_unfrozen = ("*/cross_attention*",)
  # Implementation of attention over whole rows; steps of decoding are "xla"'s.
  # "auto", where no weights are dropped: on TPUs, from 128 keys on, "short" of
  # short rows and "splash" of others; "cudnn" on GPUs, in bfloat16 and of rows
  # that are not packed; else "xla". On CPUs, TPUs' kernels are interpreted.
  model.attention = "auto"
  # "values": one draw per key and head (T5's); "weights": PyTorch's.
  model.attention_dropout = "values"
  # One rate for both sides; -1.0: the rates of the Hub configs.
  model.dropout = -1.0
  # Deviation of random weights; -1.0: that of the Hub configs.
  model.init_std = -1.0
  # Whether a side whose tokenizer has more tokens than its checkpoint gets rows
  # for them, equal to the mean of those that it has.
  model.grow_vocabulary = False
  # Rows of the token tables are padded to a multiple of this.
  model.vocab_multiple = 128
  # Token strings of the target tokenizer; empty: resolved from the files.
  model.start_token = ""
  model.end_token = ""
  model.pad_token = ""
  return model


def _set_sides(model: Any) -> None:
  """What the sides are, and what they start from."""
  # A saved pair to start from whole, a folder or a Hub id: such as an export,
  # to go on with on new data. It stands in place of the six keys that follow,
  # and its sharing, tokenizers, special tokens and options of generation come
  # with it; what is set here or in `generation` wins.
  model.pair = ""
  # A Hub id ("bert-base-uncased"), a folder, or a preset ("bert:tiny").
  model.encoder = ""
  model.decoder = ""
  # "pretrained" takes the weights of that checkpoint, "random" its shape only.
  # A preset has no weights and must say "random".
  model.encoder_init = "pretrained"
  model.decoder_init = "pretrained"
  # The numbers, from 0, of the checkpoint's layers that a side is made of, as
  # (0, 2, 4); empty: all.
  model.encoder_layers = ()
  model.decoder_layers = ()
  # "encoder": the decoder's table of tokens, and a head tied to it, start as a
  # copy of a pretrained encoder's (BertSum); empty: as decoder_init says.
  model.decoder_embeddings_init = ""
  # The longest row of a side, in tokens; 0: the Hub config's. A checkpoint's
  # learned table becomes longer by "repeat_last", new rows equal to its last
  # one, or "interpolate", its rows stretched.
  model.encoder_positions = 0
  model.decoder_positions = 0
  model.position_extension = "repeat_last"
  # What the sides share: "none"; "embeddings", of the tokens, and with them a
  # tied head; "all" that both have (Rothe et al.'s BERTShare). Both then have
  # one tokenizer, and start from one checkpoint, or one side is random, which
  # takes it from the other. Empty: what a saved pair shares, else "none".
  model.share = ""


def _data() -> Any:
  """What is seen."""
  data = ConfigDict()
  # "scheme:location@split", or a mixture "0.7*uri,0.3*uri": weights, in any
  # unit, are shares of every 1000 rows (batches, with buckets), and each source
  # has epochs of its own. Commas divide, so a path here has none.
  data.train = ""
  # "name=uri,name=uri": the sets evaluated during training. The first one
  # chooses the best checkpoint. A bare uri is called "valid".
  data.eval = ""
  # The sets of --mode=eval, written alike; empty: those of data.eval.
  data.test = ""
  # Fields of a record.
  data.source_field = "source"
  data.target_field = "target"
  # In tokens, special tokens included; longer ones are truncated and counted.
  data.max_source_length = 128
  data.max_target_length = 32
  # A Hub id or a folder; empty: the model's own, and for a preset one trained
  # on the training split and kept in the workdir.
  data.source_tokenizer = ""
  data.target_tokenizer = ""
  # Types of a source's tokens: "sentences" gives each of its lines the special
  # tokens of a text, and the lines the types 0 and 1 by turns (BertSum); empty:
  # all are of type 0.
  data.source_types = ""
  # The language's code that a tokenizer puts around a text, as mBART's, NLLB's
  # and M2M's do ("en_XX", "deu_Latn", "fr"); empty: the tokenizer's own.
  data.source_language = ""
  data.target_language = ""
  # Sizes of trained tokenizers.
  data.source_vocab_size = 4000
  data.target_vocab_size = 2000
  # Whether a WordPiece tokenizer that is trained tells capitals and accents
  # apart. Byte-level BPE, as of a GPT-2 or RoBERTa preset, always does.
  data.keep_case = False
  # What a batch that is not packed is padded to: the smallest (source i, target
  # i) that holds its longest row; empty: the maximum lengths.
  data.source_buckets = ()
  data.target_buckets = ()
  # Of training: "none", a pair a row in any order; "bucket", a pair a row and
  # in a batch those of one bucket; "pack", several pairs a row.
  data.packing = "none"
  # Shape of a packed row; 0: the maximum lengths. It may be longer than what
  # the model has positions for: they count in each pair anew.
  data.pack_source_length = 0
  data.pack_target_length = 0
  # Folder of prepared sets, which many runs may share: a set is tokenised once
  # and found again; empty: <workdir>/store.
  data.store = ""
  # Processes that tokenise a set of more than 8,192 records; 0: one a core.
  data.prepare_workers = 0
  # "error" stops at a malformed record; "skip" counts and reports them.
  data.on_bad_record = "error"
  # Processes that build batches; 0: threads of this one.
  data.workers = 0
  # Whether a run that goes on with another batch size, packing or other shapes
  # may begin its epoch again: what that epoch has shown is then seen twice.
  data.restart_epoch = False
  return data


def _train() -> Any:
  """How long, how much at a time, what is kept."""
  train = ConfigDict()
  # Updates, in all.
  train.steps = 1000
  # Rows of a global batch, all microbatches and all devices together; a row is
  # a pair unless packed.
  train.batch_size = 32
  # Microbatches in a step.
  train.accumulate_steps = 1
  # The share of a target's probability that other tokens get, and which ones:
  # "uniform": all (PyTorch's); "others": all but the target (tensor2tensor's);
  # "opennmt": all but the target and padding (BertSum's).
  train.label_smoothing = 0.0
  train.smoothing_form = "uniform"
  # Factor of the squared log-normaliser, as 1e-4 (PaLM's); 0.0: none.
  train.z_loss = 0.0
  # R-Drop's alpha: each batch is computed with two dropouts, whose predictions
  # shall agree (Liang et al. 2021); 0.0: off.
  train.r_drop = 0.0
  # Chunks of the loss, which never holds all logits at once; 1: it does.
  train.loss_chunks = 1
  # Generator of dropout: "threefry" draws the same bits on every mesh;
  # "unsafe_rbg" does not, and is faster on a TPU.
  train.rng = "threefry"
  train.log_every_steps = 50
  # 0: at the end only. A step that was evaluated is saved too.
  train.eval_every_steps = 0
  train.checkpoint_every_steps = 0
  # The newest checkpoints kept, the best one aside.
  train.keep_last = 2
  # A value of metrics.jsonl, of any set of data.eval, such as
  # "eval/valid/rougeL"; empty: "eval/<first set>/loss".
  train.best_metric = ""
  # "min" or "max", as it is better.
  train.best_mode = "min"
  # Training ends, as at train.steps, when train.best_metric has not improved in
  # so many evaluations; 0: never. A run that has ended so goes on with more.
  train.patience_evaluations = 0
  return train


def _optim() -> Any:
  """The update."""
  optim = ConfigDict()
  # "adamw"; "adam", which has no weight decay; "lion"; "lamb"; "sgd";
  # "adafactor", whose rate is relative to the size of a matrix, without
  # momentum; "muon", of the matrices of layers (at the rate of AdamW, which all
  # else has: tables, heads, norms, biases).
  optim.name = "adamw"
  optim.lr = 1e-4
  # After warm-up: "constant"; "linear" and "cosine", to zero at the end; "wsd",
  # constant, then linear to zero; "rsqrt", lr * (warm-up / step)^0.5; "noam",
  # lr * width^-0.5 * step^-0.5; "noam_unscaled", lr * step^-0.5, as BertSum's.
  optim.schedule = "linear"
  optim.warmup_steps = 0
  # The last updates of "wsd". Extend such a run from before they begin.
  optim.decay_steps = 0
  # Of adamw, adam, lamb, lion and muon's AdamW; eps not of lion.
  optim.b1 = 0.9
  optim.b2 = 0.999
  optim.eps = 1e-8
  # Of sgd and muon; -1.0: 0.9 and 0.95.
  optim.momentum = -1.0
  # On matrices and tables; never on biases and norms. Times the learning rate.
  optim.weight_decay = 0.0
  # Global norm of the gradient; 0.0: not clipped.
  optim.clip_norm = 0.0
  # Settings of parameters by their stored paths, "pattern: setting=value, ..."
  # each, in a flag with ";" between: ("*/cross_attention*: lr_scale=10",). "*"
  # matches "/" too, and what the sides share is under "encoder/". Settings: lr,
  # or lr_scale, a factor of optim.lr; schedule, warmup_steps, weight_decay, b1,
  # b2, eps; frozen=true; frozen_steps=N, frozen for the first N updates, which
  # its schedule counts. The rates are train/lr/<pattern> in metrics.jsonl.
  optim.groups = ()
  # Of a moving average of parameters, which is evaluated, predicted with and
  # exported in their place, such as 0.999; 0.0: none. It begins with less.
  optim.ema_decay = 0.0
  return optim


def _generation() -> Any:
  """How text is made.

  A key that is not set has the value of the saved pair that the run starts
  from (`model.pair`), or the default that its comment ends with.
  """
  generation = ConfigDict()
  # 1: greedy; 0: not set, 1.
  generation.num_beams = 0
  # Texts a source in --mode=predict, the best of the beams; more than one make
  # lists; 0: not set, 1.
  generation.num_return_sequences = 0
  # In tokens, the start token included; 0: not set, data.max_target_length + 1.
  generation.max_length = 0
  # Before it, no end token; -1: not set, 0.
  generation.min_length = -1
  # A text's score: "pytorch", its log-probability over length^length_penalty;
  # "gnmt", over ((5 + length) / 6)^length_penalty, as Rothe et al. and BertSum.
  generation.scoring = "pytorch"
  # -100.0: not set, 1.0.
  generation.length_penalty = -100.0
  # In tokens; 0: off; -1: not set, 0.
  generation.no_repeat_ngram_size = -1
  # Drop beams that repeat three words in a row (BertSum).
  generation.block_trigrams = False
  # "false", "true" or "never", of beam search; empty: not set, "false".
  generation.early_stopping = ""
  # Options of Hugging Face's GenerationConfig that have no key here, as a JSON
  # object: '{"repetition_penalty": 1.2, "forced_bos_token_id": null}'. A null
  # takes away what a saved pair sets.
  generation.options = ""
  return generation


def _eval() -> Any:
  """What is measured."""
  evaluation = ConfigDict()
  # Rows of a batch, in evaluation and prediction; 0: train.batch_size. Rounded
  # up to a multiple of the devices that share a batch.
  evaluation.batch_size = 0
  # Examples whose text is generated, spread evenly over the set; 0: all of
  # them; -1: none.
  evaluation.text_examples = 0
  # Of generated text: "exact_match"; "rouge" (rouge1, rouge2, rougeL and
  # rougeLsum); "bleu", "chrf" and "ter" of the corpus, by sacrebleu; "sari";
  # "length_ratio", predicted words over those of the references; "copy_rate",
  # the share of predicted n-grams that stand in the source; "novel_1" to
  # "novel_4", the share of those of n words that do not.
  evaluation.metrics = ("exact_match", "rouge")
  # Whether ROUGE compares Porter's stems of words, as ROUGE-1.5.5 -m does.
  evaluation.rouge_stemmer = True
  # The sentences of rougeLsum, which summaries' papers often call ROUGE-L:
  # "lines", of texts with one sentence a line; "split", also after full stops.
  evaluation.rouge_sentences = "lines"
  # sacrebleu's tokenizer of BLEU, and of SARI: "13a", "intl", "char", "zh" or
  # "none", of texts that are tokenized already; SARI as its authors compute it
  # ("authors", Xu et al. 2016), or "tensor2tensor", as Rothe et al.
  evaluation.bleu_tokenize = "13a"
  evaluation.sari_form = "authors"
  # Whether BLEU and chrF ignore case; TER and SARI always do.
  evaluation.lowercase = False
  # --mode=eval also measures with sources permuted among the examples, as the
  # set "<name>_permuted": what the model knows without reading its source.
  evaluation.permute_sources = False
  # Resamples of the bootstrap, which gives metrics their 95% intervals.
  evaluation.bootstrap_samples = 2000
  # Examples printed by --mode=eval.
  evaluation.print_examples = 5
  return evaluation


def _mesh() -> Any:
  """Devices: slice x data x fsdp x tensor; one may be -1: whatever is left."""
  return ConfigDict({"slice": 1, "data": -1, "fsdp": 1, "tensor": 1})


def _sharding() -> Any:
  """Logical axis -> axes of the mesh."""
  sharding = ConfigDict()
  sharding.batch = ("slice", "data", "fsdp")
  # Tokens of a row, between sublayers: ("tensor",) splits there what attention
  # and feed-forward layers split by heads and width (Korthikanti et al. 2022),
  # so that activations take less memory. Lengths must divide.
  sharding.sequence = ()
  sharding.vocab = ("fsdp", "tensor")
  sharding.embed = ("fsdp",)
  sharding.heads = sharding.kv_heads = ("tensor",)
  sharding.mlp = sharding.logits = ("tensor",)
  sharding.head_width = sharding.layers = sharding.norm = ()
  return sharding
