"""Stages: one file per word a recipe may use."""
