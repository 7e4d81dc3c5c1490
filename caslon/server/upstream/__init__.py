"""Other servers behind the same API: a request in OpenAI's shape to theirs, and their stream back to pieces of an answer."""
