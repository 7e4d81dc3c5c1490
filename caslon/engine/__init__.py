"""Prompts to tokens: paged cache, continuous batching, sampling."""
