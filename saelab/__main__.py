"""`python -m saelab` is `saelab`."""

from saelab.cli import main

if __name__ == "__main__":
    main()
