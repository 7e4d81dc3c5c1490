"""Sets the engine beside other programs: same folder, same threads, same prompts, in turns."""
