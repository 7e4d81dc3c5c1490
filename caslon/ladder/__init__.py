"""Bytes of one text to models of every age, from counting to transformers, and what each of them needs for a byte."""
