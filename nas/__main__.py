"""`python -m nas` is the command line."""

from nas.cli import app

if __name__ == "__main__":
    app()
