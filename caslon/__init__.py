"""caslon: own your language model, from raw text to a served, observed assistant."""

__version__ = "0.1.0"
