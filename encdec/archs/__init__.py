"""The architectures: each file declares, none computes.

A file gives `stack_config(hub, role)` out of a Hub config's dict,
`weights(config)`, the table of a Hub file's tensors, `PRESETS`, `BASE_PREFIX`
(the base model's name within a model that has a head), `IGNORED` (patterns of
Hub keys that hold no parameter) and `TIED_NAMES` (Hub names of a tied head,
restored by tying and never written).
"""

from types import ModuleType

from encdec.archs import (
  albert,
  bert,
  bert_generation,
  distilbert,
  electra,
  gpt2,
  roberta,
  roberta_prelayernorm,
)

# By the Hub's model_type.
ARCHS: dict[str, ModuleType] = {
  "bert": bert,
  "roberta": roberta,
  "xlm-roberta": roberta,
  "camembert": roberta,
  "bert-generation": bert_generation,
  "gpt2": gpt2,
  "electra": electra,
  "distilbert": distilbert,
  "albert": albert,
  "roberta-prelayernorm": roberta_prelayernorm,
}
