"""x"""


def page(document: dict) -> str:
    return "x"
