"""What models cost: a price list read from a TOML file, and the cost of one exchange by it.

    currency = "USD"
    [[price]]
    at = "api.openai.com"       # host of the upstream's address, or the upstream's name
    model = "gpt-4.1-mini*"     # shell-like pattern of the model's name there
    input = 0.40                # for a million tokens of prompt
    output = 1.60               # for a million tokens of answer

Rules: the first entry that fits counts; without one the cost is not known, which is not the same as nothing. Money is
counted in whole millionths of the currency (micros), rounded up once an exchange. Tokens that a provider had in its
cache count as others do: what is recorded is never less than the bill for them.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from common.errors import StartError
from daemon.config import Config

SHIPPED = Path(__file__).with_name("prices.toml")


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at: str
    model: str
    input: Decimal
    output: Decimal


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$")] = "USD"
    price: list[_Entry] = []


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost in the currency, which is what one costs in micros."""

    input: Decimal
    output: Decimal

    def cost(self, tokens_in: int | None, tokens_out: int | None) -> int:
        """Micros for so many tokens; those that nobody told cost nothing."""
        exact = self.input * (tokens_in or 0) + self.output * (tokens_out or 0)
        return int(exact.to_integral_value(ROUND_CEILING))


class Prices:
    """A price list."""

    def __init__(self, file: _File, path: Path) -> None:
        self.path = path
        self.currency = file.currency
        self._entries = file.price
        self._found: dict[tuple[str, str, str], Price | None] = {}

    def __eq__(self, other: object) -> bool:
        """Whether the same things cost the same."""
        return isinstance(other, Prices) and (self.currency, self._entries) == (other.currency, other._entries)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def read(cls, path: Path) -> Prices:
        """From the file at `path`. StartError where it is no price list."""
        try:
            # Decimal from the file's own text: 0.1 is a tenth.
            document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
            file = msgspec.convert(document, _File)
        except OSError as error:
            raise StartError(f"cannot read the prices in {path}: {error.strerror or error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
            raise StartError(f"{path} is no price list: {error}") from error
        for entry in file.price:
            if not (entry.input.is_finite() and entry.output.is_finite()) or min(entry.input, entry.output) < 0:
                raise StartError(f"{path} is no price list: {entry.model} has a price below nothing")
        return cls(file, path)

    @classmethod
    def of(cls, config: Config) -> Prices:
        """The list that `config` means. StartError."""
        if config.models.prices:
            return cls.read(Path(config.models.prices))
        own = config.data / "prices.toml"
        return cls.read(own if own.is_file() else SHIPPED)

    def price_of(self, upstream: str, url: str, model: str) -> Price | None:
        """What `model` costs at the upstream of that name and address; None where the list does not say."""
        key = (upstream, url, model)
        if key not in self._found:
            self._found[key] = self._look_up(upstream, urlsplit(url).hostname or "", model)
        return self._found[key]

    def _look_up(self, upstream: str, host: str, model: str) -> Price | None:
        for entry in self._entries:
            if entry.at in (upstream, host) and fnmatchcase(model, entry.model):
                return Price(entry.input, entry.output)
        return None
