"""Makes a small tokenizer without a network: tokenizer.py DIRECTORY

Words of three letters are one token, as the simulated replicas count, and every
other text is split down to bytes, so that each has a length. It stands in for a
model's own where none can be downloaded: lengths it reports are only like the
replica's.
"""

import itertools
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

WORDS = (
    "the and for are but not you all any can had her was one our out "
    "day get has him his how man new now old see two way who boy did "
    "its let put say she too use dad car dog cat run sit big red hot "
    "sun sky sea air top end add art ask bad bag bed box bus buy cup"
).split()
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=2000,
    special_tokens=["<s>", "</s>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
)
tokenizer.train_from_iterator((" ".join(p) + " " for p in itertools.permutations(WORDS, 2)), trainer)
fast = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=131072
)
fast.chat_template = TEMPLATE
fast.save_pretrained(sys.argv[1])
