"""Chat data of any common form becomes canonical rows that training accepts, checked, counted and divided."""
