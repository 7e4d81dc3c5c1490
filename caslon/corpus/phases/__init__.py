"""The phases of a build. Each works on one batch alone; what needs the whole corpus is decided between them, on numbers."""
