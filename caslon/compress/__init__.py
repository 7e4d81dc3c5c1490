"""Makes weights smaller."""
