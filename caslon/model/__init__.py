"""Decoder models and the Hugging Face model folder."""
