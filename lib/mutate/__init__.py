"""Mutation testing of the book: break the library, the formulas and the machine on purpose, and count what is caught.

``python -m mutate library`` (``make mutate``) breaks ``lib/explainers``, ``derivations`` breaks the formula behind each
claim, and ``stability`` runs the notebooks under other settings of the machine.
"""
