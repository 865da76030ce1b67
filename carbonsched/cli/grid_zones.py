"""`carbonsched grid --zones WORD`: find grid zones offline, by country, city, region of a cloud or coordinates."""

from carbonsched.feeds.setup.places import Found, GridZone, search
from carbonsched.model.grid_setup import ZoneList, ZoneRow


def zones(word: str) -> ZoneList:
    """Every zone that a word may mean. Raises InputError if there is none."""
    rows = [_row(one) for one in search(word)]
    by_key = {row.zone: row for row in reversed(rows)}
    return ZoneList(zones=tuple(row for row in rows if by_key.get(row.zone) is row))


def _row(one: Found | GridZone) -> ZoneRow:
    if isinstance(one, GridZone):
        return ZoneRow(zone=one.key, name=one.name, country=one.country)
    place = one.place.shown if one.place is not None else None
    return ZoneRow(
        zone=one.zone.key, name=one.zone.name, country=one.country.alpha_2, place=place, distance_km=one.km
    )


def show(found: ZoneList) -> None:
    """For people."""
    from carbonsched.cli import output as o

    rows = o.table("ZONE", "NAME", "COUNTRY", "PLACE", wrap=("NAME", "PLACE"))
    for row in found.zones:
        far = f", {row.distance_km:g} km away" if row.distance_km is not None else ""
        rows.add_row(row.zone, row.name, row.country, f"{row.place or ''}{far}")
    o.console().print(rows)
