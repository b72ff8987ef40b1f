"""`python -m synq_tune.cli.pages`: write the generated pages of a checkout, see `make docs`."""

from synq_tune.cli.pages import write_pages

if __name__ == "__main__":
    print("\n".join(f"docs/{name} written" for name in write_pages()) or "docs: nothing changed")
