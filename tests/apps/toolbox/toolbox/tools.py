"""The tools that come with the project, and what plugins need of it."""


class BadInput(ValueError):
    """The text is nothing that the tool can work on."""


def upper(text):
    """Capital letters."""
    return text.upper()
