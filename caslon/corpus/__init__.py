"""From raw files to clean, deduplicated, documented text whose every character can be traced."""
