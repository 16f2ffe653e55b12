"""Extract, then generate: the pieces of SPACES, each small enough to be checked.

ROUGE and labels for an extractor, a dilated gated CNN, a Transformer that copies, sparse softmax with the theory of
what it can learn, and a beam search whose copy states travel with the hypotheses. Chapter summarization derives
everything; each docstring names the equation it implements. Tokens are hashables in sequences, a bare string where
tokens are expected is a TypeError; tensors follow torch's conventions; probabilities are natural logarithms.

References
----------
Su Jianlin, "SPACES: extract-generate summarisation of long texts", 2021, https://kexue.fm/archives/8046.
"""

from __future__ import annotations

from ._summarization_copy import (
    BEGINS,
    CONTINUES,
    NOT_COPIED,
    CopyIndex,
    Hypothesis,
    beam_search,
    copy_mixture,
    copy_tags,
    stale_beam_search,
)
from ._summarization_data import (
    Judgment,
    Pair,
    SpecialWords,
    docstring_pairs,
    read_cail,
    split_by_module,
    split_words,
    train_bpe,
    words,
)
from ._summarization_experiments import (
    decode,
    extraction_data,
    folds,
    generation_data,
    generation_run,
    judge,
    kl_bernoulli,
    ladder,
    tagger_score,
    toy_decoder,
)
from ._summarization_metric import (
    Rouge,
    greedy_labels,
    lcs_alignment,
    match_labels,
    rouge,
    split_sentences,
    textrank,
)
from ._summarization_models import (
    END,
    PAD,
    SEPARATOR,
    ExtractiveTagger,
    Summarizer,
    add_words,
    compound_embeddings,
    copy_masks,
    fit_summarizer,
    held_out,
    make_rows,
    mean_pool,
)
from ._summarization_softmax import (
    SparseRisk,
    linear_sparse_cross_entropy,
    logit_gap,
    sparse_cross_entropy,
    sparse_risk,
    sparse_softmax,
)

__all__ = [
    "BEGINS",
    "CONTINUES",
    "END",
    "NOT_COPIED",
    "PAD",
    "SEPARATOR",
    "CopyIndex",
    "ExtractiveTagger",
    "Hypothesis",
    "Judgment",
    "Pair",
    "Rouge",
    "SparseRisk",
    "SpecialWords",
    "Summarizer",
    "add_words",
    "beam_search",
    "compound_embeddings",
    "copy_masks",
    "copy_mixture",
    "copy_tags",
    "decode",
    "docstring_pairs",
    "extraction_data",
    "fit_summarizer",
    "folds",
    "generation_data",
    "generation_run",
    "greedy_labels",
    "held_out",
    "judge",
    "kl_bernoulli",
    "ladder",
    "lcs_alignment",
    "linear_sparse_cross_entropy",
    "logit_gap",
    "make_rows",
    "match_labels",
    "mean_pool",
    "read_cail",
    "rouge",
    "sparse_cross_entropy",
    "sparse_risk",
    "sparse_softmax",
    "split_by_module",
    "split_sentences",
    "split_words",
    "stale_beam_search",
    "tagger_score",
    "textrank",
    "toy_decoder",
    "train_bpe",
    "words",
]
