"""`python -m pipeline.reference`."""

from pipeline.reference.pages import write

if __name__ == "__main__":
    write()
