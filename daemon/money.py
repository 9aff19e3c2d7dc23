"""Amounts of money: whole millionths of a currency (micros) inside, decimal numbers for people."""

from __future__ import annotations

from decimal import Decimal

MICROS = 1_000_000


def written(micros: int) -> str:
    """An amount as people write it: 1234567 micros are 1.234567."""
    return f"{Decimal(micros) / MICROS:f}"
