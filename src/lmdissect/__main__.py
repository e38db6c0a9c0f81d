"""`python -m lmdissect`."""

from lmdissect.cli.main import main

if __name__ == "__main__":
    main()
