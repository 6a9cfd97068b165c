"""Integers that are known only when the model runs, as polynomials in the sizes of its inputs.

``12 * N`` and ``N * 12`` are one thing here, ``(N * 12) / N`` is 12, ``N - N`` is 0. What no polynomial can say, such
as ``S / 7`` rounded down, becomes a symbol of its own; asking for it again gives the same symbol, so that two
computations of one size still compare equal. An integer is either a Python int or a :class:`Form`, never constant.
"""

from __future__ import annotations

from collections.abc import Mapping

_MAX_TERMS = 32
_MAX_DEGREE = 12


class Symbol:
    """One unknown integer, equal only to itself.

    Attributes:
        label: For messages only; it does not spell out what the symbol is made of, which may be long.
        order: Place in the order of creation, which orders monomials.
        low: A proven lower bound; None if there is none.
        high: A proven upper bound; None if there is none.
    """

    __slots__ = ("form", "high", "label", "low", "order", "parts")

    def __init__(self, label: str, order: int, low: int | None, high: int | None) -> None:
        self.label = label
        self.order = order
        self.low = low
        self.high = high
        self.parts: tuple[str, tuple[Int, ...]] | None = None
        self.form = Form({(self,): 1})

    def __repr__(self) -> str:
        return self.label


class Form:
    """A polynomial with integer coefficients that is not constant; immutable, compares by content.

    Args:
        terms: Coefficient by monomial: a tuple of symbols sorted by ``order``; the empty one stands for the constant.
    """

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[tuple[Symbol, ...], int]) -> None:
        self.terms = terms
        self._hash: int | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Form) and self.terms == other.terms

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def __repr__(self) -> str:
        return " + ".join("*".join([str(c), *(s.label for s in m)]) for m, c in self.terms.items())

    @property
    def symbol(self) -> Symbol | None:
        """The symbol this form is nothing but, if so."""
        if len(self.terms) != 1:
            return None
        ((monomial, coefficient),) = self.terms.items()
        return monomial[0] if len(monomial) == 1 and coefficient == 1 else None


Int = int | Form
"""An integer of the running model: known now, or a form."""

_Terms = dict[tuple[Symbol, ...], int]


def _terms(x: Int) -> Mapping[tuple[Symbol, ...], int]:
    if isinstance(x, Form):
        return x.terms
    return {(): x} if x else {}


def _normal(terms: _Terms) -> Int:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    return Form(kept)


class Algebra:
    """Arithmetic on known and unknown integers; makes the symbols and remembers those that stand for an operation."""

    def __init__(self) -> None:
        self._count = 0
        self._named: dict[str, Form] = {}
        self._derived: dict[object, Form] = {}

    def fresh(self, label: str = "?", low: int | None = 0, high: int | None = None) -> Form:
        """An unknown that equals nothing else; a size unless ``low`` is None."""
        self._count += 1
        return Symbol(f"{label}#{self._count}", self._count, low, high).form

    def named(self, name: str) -> Form:
        """The size that a graph input calls ``name``; the same name is the same size."""
        if name not in self._named:
            self._named[name] = self.fresh(name)
        return self._named[name]

    def _derive(self, operation: str, args: tuple[Int, ...], key: object, low: int | None, high: int | None) -> Form:
        if key not in self._derived:
            form = self.fresh(operation, low, high)
            symbol = form.symbol
            assert symbol is not None
            symbol.parts = (operation, args)
            self._derived[key] = form
        return self._derived[key]

    # -- ring operations -------------------------------------------------------------------------------------------

    def add(self, a: Int, b: Int) -> Int:
        """``a + b``."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        terms = dict(_terms(a))
        for monomial, coefficient in _terms(b).items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return self._bounded("add", terms, a, b)

    def neg(self, a: Int) -> Int:
        """``-a``."""
        return -a if isinstance(a, int) else Form({m: -c for m, c in a.terms.items()})

    def sub(self, a: Int, b: Int) -> Int:
        """``a - b``."""
        return self.add(a, self.neg(b))

    def mul(self, a: Int, b: Int) -> Int:
        """``a * b``."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        terms: _Terms = {}
        if len(_terms(a)) * len(_terms(b)) <= 4 * _MAX_TERMS:
            for m1, c1 in _terms(a).items():
                for m2, c2 in _terms(b).items():
                    monomial = tuple(sorted(m1 + m2, key=lambda s: s.order)) if m1 and m2 else m1 or m2
                    terms[monomial] = terms.get(monomial, 0) + c1 * c2
            return self._bounded("mul", terms, a, b)
        return self._derive("mul", (a, b), ("mul", frozenset((a, b))), None, None)

    def _bounded(self, operation: str, terms: _Terms, a: Int, b: Int) -> Int:
        """The normal form, or a symbol in its place where the polynomial grows out of hand."""
        if len(terms) <= _MAX_TERMS and all(len(m) <= _MAX_DEGREE for m in terms):
            return _normal(terms)
        low = 0 if self.is_natural(a) and self.is_natural(b) else None
        return self._derive(operation, (a, b), (operation, frozenset((a, b))), low, None)

    def product(self, items: tuple[Int, ...] | list[Int]) -> Int:
        """The product of all; 1 of none."""
        total: Int = 1
        for item in items:
            total = self.mul(total, item)
        return total

    # -- bounds and comparison -------------------------------------------------------------------------------------

    def low(self, x: Int) -> int | None:
        """A proven lower bound, or None."""
        return _bound(x, lower=True)

    def high(self, x: Int) -> int | None:
        """A proven upper bound, or None."""
        return _bound(x, lower=False)

    def is_natural(self, x: Int) -> bool:
        """Whether x is proven to be 0 or more."""
        low = self.low(x)
        return low is not None and low >= 0

    def compare(self, a: Int, b: Int) -> tuple[bool | None, bool | None, bool | None]:
        """Whether (a < b, a == b, a > b), each True, False or unproven."""
        difference = self.sub(a, b)
        if isinstance(difference, int):
            return difference < 0, difference == 0, difference > 0
        low, high = self.low(difference), self.high(difference)
        above = low is not None and low >= 0
        below = high is not None and high <= 0
        never = (low is not None and low > 0) or (high is not None and high < 0)
        less = True if below and never else False if above else None
        more = True if above and never else False if below else None
        return less, False if never else None, more

    def minimum(self, a: Int, b: Int) -> Int:
        """``min(a, b)``."""
        less, _, more = self.compare(a, b)
        if less or more is False:
            return a
        if more or less is False:
            return b
        lows, highs = [self.low(a), self.low(b)], [h for h in (self.high(a), self.high(b)) if h is not None]
        low = min(x for x in lows if x is not None) if None not in lows else None
        return self._derive("min", (a, b), ("min", frozenset((a, b))), low, min(highs, default=None))

    def maximum(self, a: Int, b: Int) -> Int:
        """``max(a, b)``."""
        less, _, more = self.compare(a, b)
        if more or less is False:
            return a
        if less or more is False:
            return b
        lows, highs = [x for x in (self.low(a), self.low(b)) if x is not None], [self.high(a), self.high(b)]
        high = max(x for x in highs if x is not None) if None not in highs else None
        return self._derive("max", (a, b), ("max", frozenset((a, b))), max(lows, default=None), high)

    # -- division --------------------------------------------------------------------------------------------------

    def quotient(self, a: Int, b: Int) -> Int | None:
        """The q with ``a == b * q`` for every value of the symbols, or None; where b is 0, division fails anyway."""
        if isinstance(b, int):
            if b == 0 or any(c % b for c in _terms(a).values()):
                return None
            return _normal({m: c // b for m, c in _terms(a).items()})
        rest, found = dict(_terms(a)), _Terms()
        lead, factor = max(b.terms.items(), key=_rank)
        for _ in range(_MAX_TERMS):
            if not rest:
                return _normal(found)
            monomial, coefficient = max(rest.items(), key=_rank)
            shared = _without(monomial, lead)
            if shared is None or coefficient % factor:
                return None
            part = coefficient // factor
            found[shared] = found.get(shared, 0) + part
            for m, c in b.terms.items():
                key = tuple(sorted(m + shared, key=lambda s: s.order))
                rest[key] = rest.get(key, 0) - c * part
                if not rest[key]:
                    del rest[key]
        return None

    def floor_div(self, a: Int, b: Int) -> Int | None:
        """``a / b`` rounded down, for a known b above 0 or an exact division; None if that cannot be said."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b if b else None
        exact = self.quotient(a, b)
        if exact is not None:
            return exact
        if not isinstance(b, int) or b <= 0:
            return None
        base = _normal({m: c // b for m, c in _terms(a).items()})
        rest = _normal({m: c % b for m, c in _terms(a).items()})
        if isinstance(rest, int):
            return self.add(base, rest // b)
        low, high = self.low(rest), self.high(rest)
        symbol = self._derive(
            "floor",
            (rest, b),
            ("floor", rest, b),
            None if low is None else low // b,
            None if high is None else high // b,
        )
        return self.add(base, symbol)

    def trunc_div(self, a: Int, b: Int) -> Int | None:
        """``a / b`` rounded towards zero, as integer Div does; None if it cannot be said."""
        if isinstance(a, int) and isinstance(b, int):
            if b == 0:
                return None
            return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        exact = self.quotient(a, b)
        if exact is not None:
            return exact
        if isinstance(b, int):
            return self.floor_div(a, b) if b > 0 and self.is_natural(a) else None
        low = 0 if self.is_natural(a) and self.is_natural(b) else None
        return self._derive("trunc", (a, b), ("trunc", a, b), low, None)

    def floor_mod(self, a: Int, b: Int) -> Int | None:
        """The remainder that has the sign of b; None if it cannot be said."""
        if isinstance(a, int) and isinstance(b, int):
            return a % b if b else None
        quotient = self.floor_div(a, b)
        if quotient is None:
            return None
        return self.sub(a, self.mul(b, quotient))


def _rank(term: tuple[tuple[Symbol, ...], int]) -> tuple[int, tuple[int, ...]]:
    """Graded order of monomials: any fixed order that multiplication keeps would do."""
    return len(term[0]), tuple(-s.order for s in term[0])


def _without(monomial: tuple[Symbol, ...], divisor: tuple[Symbol, ...]) -> tuple[Symbol, ...] | None:
    left = list(monomial)
    for symbol in divisor:
        if symbol not in left:
            return None
        left.remove(symbol)
    return tuple(left)


def _bound(x: Int, *, lower: bool) -> int | None:
    if isinstance(x, int):
        return x
    total = 0
    for monomial, coefficient in x.terms.items():
        part = _product_bound(monomial, lower=(coefficient > 0) == lower)
        if part is None:
            return None
        total += coefficient * part
    return total


def _product_bound(monomial: tuple[Symbol, ...], *, lower: bool) -> int | None:
    """A bound of a product of symbols; only products of non-negative symbols have one, a single symbol its own."""
    if len(monomial) == 1:
        return monomial[0].low if lower else monomial[0].high
    total = 1
    for symbol in monomial:
        if symbol.low is None or symbol.low < 0:
            return None
        bound = symbol.low if lower else symbol.high
        if bound is None:
            return None
        total *= bound
    return total
