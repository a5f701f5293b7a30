"""`python -m mdpot` is the command `mdpot`."""

from mdpot.cli import main

if __name__ == "__main__":
    main()
