"""Counts with their nouns, as a person writes them: 1 record, 2 records."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Write a count with its noun.

    >>> counted(1, "record"), counted(12000, "record")
    ('1 record', '12,000 records')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def acknowledged(count: int) -> str:
    """Say how many records were acknowledged.

    >>> acknowledged(1)
    '1 record was acknowledged'
    """
    return f"{counted(count, 'record')} {_were(count)} acknowledged"


def printed(count: int) -> str:
    """Say how many records were printed.

    >>> printed(2)
    '2 records were printed'
    """
    return f"{counted(count, 'record')} {_were(count)} printed"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
