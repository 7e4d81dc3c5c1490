"""Measures any OpenAI-compatible service, and says which results may be compared."""
