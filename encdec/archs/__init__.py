"""The supported architectures: each file only declares facts about one.

A file gives `stack_config(hub, role)` out of a Hub config's dict,
`weights(config)`, the table of a Hub file's tensors, `PRESETS` (a Hub config's
values but for `model_type`, by size), `PYTORCH_CLASSES` (of an encoder and of
a decoder alone; None: it cannot be one), `TOKENIZER` (the kind that a run
trains for it), `BASE_PREFIX` (the base model's name within a model that has a
head), `IGNORED` (patterns of Hub keys that hold no parameter), `TIED_NAMES`
(Hub names of a tied head, restored by tying and never written) and
`IN_FLAX_457` (whether transformers 4.57 could build a Flax pair with it on
each side that it can be; False also where its class was there but took other
arguments than the pair gave). Where Hub files also hold arrays that follow
from the config, `computed(config)` gives them by name.
"""

from types import ModuleType

from encdec.archs import (
  albert,
  bart,
  bert,
  bert_generation,
  blenderbot,
  camembert,
  distilbert,
  electra,
  gpt2,
  marian,
  mbart,
  pegasus,
  roberta,
  roberta_prelayernorm,
  xglm,
  xlm_roberta,
)

# By the Hub's model_type.
ARCHS: dict[str, ModuleType] = {
  "bert": bert,
  "roberta": roberta,
  "xlm-roberta": xlm_roberta,
  "camembert": camembert,
  "bert-generation": bert_generation,
  "gpt2": gpt2,
  "electra": electra,
  "distilbert": distilbert,
  "albert": albert,
  "roberta-prelayernorm": roberta_prelayernorm,
  "bart": bart,
  "mbart": mbart,
  "pegasus": pegasus,
  "marian": marian,
  "blenderbot": blenderbot,
  "xglm": xglm,
}
