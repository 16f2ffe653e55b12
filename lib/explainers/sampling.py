"""Text by search and sampling: exact laws of constrained text, and the samplers that approximate them.

The chapter is ``chapters/sampling``. Finite chains as matrices (:func:`mh_kernel` to :func:`pseudo_gibbs_law`), a
smoothed n-gram model (:class:`NgramLM`), the exact law of a bigram model under a finite-state constraint
(:class:`ExactSampler`), samplers that run many chains at once (:class:`SentenceSampler`, :func:`metropolis`,
:func:`twisted_smc`, :func:`crack_substitution`), and small worlds in which a sampler is a matrix
(:func:`edit_chain`). Everything random takes a ``numpy.random.Generator``.
"""

from ._sampling_chains import (
    asymptotic_variance,
    critical_depth,
    detailed_balance_gap,
    gibbs_kernel,
    importance_ess,
    locally_balanced_proposal,
    mh_kernel,
    mixing_time,
    pseudo_gibbs_law,
    spectral_gap,
    stationary,
    tv_distance,
)
from ._sampling_exact import Automaton, ExactSampler, twisted_smc
from ._sampling_lab import (
    EditChain,
    anneal_exactly,
    edit_chain,
    embeddings,
    order_weights,
    path_weight,
    string_neighbours,
    strings,
)
from ._sampling_mcmc import Chains, SentenceSampler, crack_substitution, metropolis
from ._sampling_ngram import NgramLM, encode, transfer_matrix
from ._sampling_text import WordLab, letters, sentences, spell, word_lab

__all__ = [
    "Automaton",
    "Chains",
    "EditChain",
    "ExactSampler",
    "NgramLM",
    "SentenceSampler",
    "WordLab",
    "anneal_exactly",
    "asymptotic_variance",
    "crack_substitution",
    "critical_depth",
    "detailed_balance_gap",
    "edit_chain",
    "embeddings",
    "encode",
    "gibbs_kernel",
    "importance_ess",
    "letters",
    "locally_balanced_proposal",
    "metropolis",
    "mh_kernel",
    "mixing_time",
    "order_weights",
    "path_weight",
    "pseudo_gibbs_law",
    "sentences",
    "spectral_gap",
    "spell",
    "stationary",
    "string_neighbours",
    "strings",
    "transfer_matrix",
    "tv_distance",
    "twisted_smc",
    "word_lab",
]
