"""Makes `python -m caslon` the command line, as torchrun starts it."""

from caslon.cli import main

if __name__ == "__main__":
    main()
