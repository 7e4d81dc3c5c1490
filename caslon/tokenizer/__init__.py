"""Text to token ids and back, exactly; one chat encoder for training and serving."""
