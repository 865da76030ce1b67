"""Names the borders of Europe's bidding zones over which power flows, for those of which ENTSO-E tells the flows.

From entsoe-py (mappings.py, NEIGHBOURS, commit 005b867), compared with the exchanges that Electricity Maps reads from ENTSO-E
(electricitymaps-contrib, config/exchanges and parsers/ENTSOE.py, commit b354f28), which has the codes of Ukraine (IPS) and of
the border between Greece and Italy's south as they are today, and Romania's with Moldova. Zones that are no more are left out,
and so are the borders with Russia and Belarus, over which nothing has flowed since 2022 (Finland) and 2025-02 (the Baltics), and
what ENTSO-E does not tell of: Morocco's, Corsica's. A zone is not listed where the two disagree on its borders (Albania, Kosovo,
Montenegro, Serbia; Italy's centre and Sardinia), nor is a country of several zones.
"""

from types import MappingProxyType
from typing import Final

from carbonsched.feeds.entso_e_documents import ZONES

_BEYOND: Final = {
    "GB": "10YGB----------A",
    "MT": "10Y1001A1001A93C",
    "TR": "10YTR-TEIAS----W",
    "UA": "10Y1001C--000182",
}
"""Neighbours that are no zones here: Great Britain has told no mix since 2021."""
CODES: Final = MappingProxyType(ZONES | _BEYOND)

BORDERS: Final = MappingProxyType(
    {
        "AT": ("CH", "CZ", "DE-LU", "HU", "IT-NORD", "SI"),
        "BA": ("HR", "ME", "RS"),
        "BE": ("DE-LU", "FR", "GB", "NL"),
        "BG": ("GR", "MK", "RO", "RS", "TR"),
        "CH": ("AT", "DE-LU", "FR", "IT-NORD"),
        "CZ": ("AT", "DE-LU", "PL", "SK"),
        "DE-LU": ("AT", "BE", "CH", "CZ", "DK1", "DK2", "FR", "NL", "NO2", "PL", "SE4"),
        "DK1": ("DE-LU", "DK2", "GB", "NL", "NO2", "SE3"),
        "DK2": ("DE-LU", "DK1", "SE4"),
        "EE": ("FI", "LV"),
        "ES": ("FR", "PT"),
        "FI": ("EE", "NO4", "SE1", "SE3"),
        "FR": ("BE", "CH", "DE-LU", "ES", "GB", "IT-NORD"),
        "GR": ("AL", "BG", "IT-SUD", "MK", "TR"),
        "HR": ("BA", "HU", "RS", "SI"),
        "HU": ("AT", "HR", "RO", "RS", "SI", "SK", "UA"),
        "IE-SEM": ("GB",),
        "IT-CALA": ("IT-SICI", "IT-SUD"),
        "IT-NORD": ("AT", "CH", "FR", "IT-CNOR", "SI"),
        "IT-SICI": ("IT-CALA", "MT"),
        "IT-SUD": ("GR", "IT-CALA", "IT-CSUD"),
        "LT": ("LV", "PL", "SE4"),
        "LV": ("EE", "LT"),
        "MK": ("BG", "GR", "RS", "XK"),
        "NL": ("BE", "DE-LU", "DK1", "GB", "NO2"),
        "NO1": ("NO2", "NO3", "NO5", "SE3"),
        "NO2": ("DE-LU", "DK1", "GB", "NL", "NO1", "NO5"),
        "NO3": ("NO1", "NO4", "NO5", "SE2"),
        "NO4": ("FI", "NO3", "SE1", "SE2"),
        "NO5": ("NO1", "NO2", "NO3"),
        "PL": ("CZ", "DE-LU", "LT", "SE4", "SK", "UA"),
        "PT": ("ES",),
        "RO": ("BG", "HU", "MD", "RS", "UA"),
        "SE1": ("FI", "NO4", "SE2"),
        "SE2": ("NO3", "NO4", "SE1", "SE3"),
        "SE3": ("DK1", "FI", "NO1", "SE2", "SE4"),
        "SE4": ("DE-LU", "DK2", "LT", "PL", "SE3"),
        "SI": ("AT", "HR", "HU", "IT-NORD"),
        "SK": ("CZ", "HU", "PL", "UA"),
    }
)
"""Bidding zone → its neighbours."""


def borders_of(code: str) -> tuple[str, ...]:
    """Neighbours of the zone with this EIC code; none where its borders are not listed.

    Example:
        >>> borders_of("10YPT-REN------W"), borders_of("10YCY-1001A0003J")
        (('ES',), ())
    """
    return next((found for name, found in BORDERS.items() if ZONES[name] == code), ())
