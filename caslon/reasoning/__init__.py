"""Spends more tokens on a question for a better answer: voting, judging, searching, revising, within one hard budget."""
