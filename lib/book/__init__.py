"""The tools of the book: ``python -m book run | check | doctor | finish | config``."""
