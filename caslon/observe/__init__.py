"""Events of a run, and what shows them."""
