"""Units of measurement: their spellings, and which of them measure the same."""

from collections.abc import Mapping

__all__ = ["CONVERSIONS", "UNITS"]

_SPELLINGS: Mapping[str, str] = {
    "%": "% percent percentage pct",
    "day": "d day days daily",
    "week": "wk wks week weeks weekly",
    "month": "mo mos month months monthly",
    "year": "y yr yrs year years yearly annual",
    "decade": "decade decades",
    "century": "century centuries",
    "hour": "h hr hrs hour hours hourly",
    "minute": "min mins minute minutes",
    "second": "s sec secs second seconds",
    "kg": "kg kilo kilos kilogram kilograms",
    "g": "g gm gram grams",
    "mg": "mg milligram milligrams",
    "ug": "ug mcg μg µg microgram micrograms",
    "ng": "ng nanogram nanograms",
    "l": "l liter liters litre litres",
    "dl": "dl deciliter deciliters",
    "ml": "ml cc milliliter milliliters millilitre millilitres",
    "ul": "ul μl µl microliter microliters",
    "km": "km kilometer kilometers kilometre kilometres",
    "m": "m meter meters metre metres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "um": "um μm µm micron microns micrometer micrometers",
    "nm": "nm nanometer nanometers",
    "mile": "mi mile miles",
    "foot": "ft foot feet",
    "inch": "inch inches",
    "degree": "° °c °f c f deg degree degrees",
    "mol": "mol mole moles",
    "mmol": "mmol",
    "umol": "umol μmol µmol",
    "bp": "bp",
    "kb": "kb",
    "kda": "kda kilodalton kilodaltons",
    "hz": "hz hertz",
    "khz": "khz",
    "mhz": "mhz",
    "gy": "gy gray grays",
    "v": "v volt volts",
    "w": "w watt watts",
    "pound": "lb lbs",
    "ppm": "ppm p.p.m",
    "fold": "fold times x",
    "$": "$ usd dollar dollars buck bucks",
    "£": "£ gbp",
    "€": "€ eur euro euros",
}

UNITS: Mapping[str, str] = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
"""Spelling in lower case to the unit's one name."""

CONVERSIONS: tuple[tuple[Mapping[str, float], float], ...] = (
    (
        {
            "second": 1 / 86400,
            "minute": 1 / 1440,
            "hour": 1 / 24,
            "day": 1.0,
            "week": 7.0,
            "month": 365.25 / 12,
            "year": 365.25,
            "decade": 3652.5,
            "century": 36525.0,
        },
        0.025,
    ),
    ({"ng": 1e-9, "ug": 1e-6, "mg": 1e-3, "g": 1.0, "kg": 1e3}, 1e-6),
    ({"nm": 1e-9, "um": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3}, 1e-6),
    ({"ul": 1e-6, "ml": 1e-3, "dl": 0.1, "l": 1.0}, 1e-6),
    ({"umol": 1e-6, "mmol": 1e-3, "mol": 1.0}, 1e-6),
)
"""Units of one kind with their sizes, and the relative difference that still counts as equal (a month is 30 or 31 days)."""
