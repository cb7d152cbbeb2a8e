"""The frozen LM, where its weights come from, and the two primitives everything else uses.

* `load_lm`, `LM`: the model, its tokenizer, embeddings and checksum;
* `answer_logits`, `score_answers`: answer scores of prompts on texts;
* `token_surprisal`: nats per token of prompts in a stated context;
* `draw_prompts`: prompts drawn from the LM, with or without replacement.
"""

from softlens.lm.answers import (
    AnswerScores,
    Hears,
    answer_chunks,
    answer_logits,
    answer_logits_each,
    score_answers,
    word_logits,
)
from softlens.lm.frozen import LM
from softlens.lm.sampling import Drawn, draw_prompts
from softlens.lm.sources import available, load_lm
from softlens.lm.surprisals import default_context, next_token_entropy, token_surprisal
from softlens.lm.texts import EncodedTexts
from softlens.lm.tries import sequence_chunks

__all__ = [
    "LM",
    "AnswerScores",
    "Drawn",
    "EncodedTexts",
    "Hears",
    "answer_chunks",
    "answer_logits",
    "answer_logits_each",
    "available",
    "default_context",
    "draw_prompts",
    "load_lm",
    "next_token_entropy",
    "score_answers",
    "sequence_chunks",
    "token_surprisal",
    "word_logits",
]
