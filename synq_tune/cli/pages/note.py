"""The first lines of every generated page."""


def head(title: str, source: str) -> list[str]:
    """A page's title, and that `make docs` writes it.

    Args:
        title: of the page.
        source: what it is made of.
    """
    return [f"# {title}", "", f"<!-- Written by `make docs` from {source}; edit that. -->", ""]
