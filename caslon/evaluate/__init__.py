"""How good the model is, beside honest baselines."""
