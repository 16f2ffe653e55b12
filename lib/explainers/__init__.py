"""Executable Explainers: one module per chapter, and the shared modules that they call."""

__version__ = "0.1.0"
