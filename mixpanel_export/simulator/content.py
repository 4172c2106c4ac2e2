"""The building blocks of events: pieces of JSON text, built once per seed and joined for each event.

Each piece is text as Mixpanel sends it, so generating events requires no serialization. Some pieces are difficult for
exporters: raw line separators in strings, decimals beyond the precision of a double, escapes that a JSON library would
write differently, and keys that resemble the keys that an exporter searches for.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple

EVENTS: tuple[tuple[bytes, int], ...] = (
    (b'"Page View"', 22),
    (b'"$mp_web_page_view"', 14),
    (b'"Product Viewed"', 9),
    (b'"Order Completed"', 6),
    (b'"Sign Up"', 5),
    (b'"Search \xf0\x9f\x94\x8d"', 3),  # an emoji
    (rb'"Caf\u00e9 Visited"', 2),
    (rb'"Clicked \"Buy now\""', 1),
    (rb'"Two\nLines & More"', 1),
    (b'"$identify"', 1),
)
"""Event names as JSON text, with their weights; the weights sum to 64."""


class Text(NamedTuple):
    """JSON text as it is sent, and as an exporter must store it, with invalid parts repaired."""

    sent: bytes
    stored: bytes


RARE_EVENTS: tuple[Text, ...] = (
    *(
        Text(name, name)
        for name in (
            b'""',
            b'" "',
            b'"$create_alias"',
            b'"$merge"',
            b'"$hotshard_events"',
            b'"$ae_session"',
            b'"$ae_first_open"',
            b'"$session_start"',
            rb'"say \"hi\", \\ and \/"',
            rb'"first\r\nsecond\tthird"',
            rb'"nul\u0000inside"',
            rb'"\ud83d\ude00 escaped"',
            b'"\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7 family"',
            b'"line\xe2\x80\xa8and\xe2\x80\xa9paragraph\xc2\x85next"',
            b'"\xef\xbb\xbfwith a mark"',
            b'",\\"properties\\":{"',
            b'"; DROP TABLE events; --"',
            b'"%s"' % (b"long " * 50),
            b'"null"',
        )
    ),
    Text(rb'"cut \ud83d"', b'"cut \xef\xbf\xbd"'),
    Text(b'"latin caf\xe9"', b'"latin caf\xef\xbf\xbd"'),
    Text(b'"tab\there"', b'"tab\xef\xbf\xbdhere"'),
)
"""Names that only awkward events have."""

NAME_TEXTS: tuple[bytes, ...] = (*(name for name, _ in EVENTS), *(name.stored for name in RARE_EVENTS))
NAMES: tuple[str, ...] = tuple(json.loads(name) for name in NAME_TEXTS)
DRAWN: tuple[int, ...] = tuple(index for index, (_, weight) in enumerate(EVENTS) for _ in range(weight))
"""The index of the event name for each of 64 equally likely draws."""

USERS, DETAILS, PAGES, EXTRAS = 2048, 64, 256, 512
"""The number of different pieces of each kind. All are powers of two, so that bits can select a piece."""

CITIES = (
    ("San Francisco", "California", "US"),
    ("São Paulo", "São Paulo", "BR"),
    ("München", "Bavaria", "DE"),
    ("東京", "Tokyo", "JP"),
    ("London", "England", "GB"),
    ("Łódź", "Łódź Voivodeship", "PL"),
    ("القاهرة", "Cairo", "EG"),
    ("Bengaluru", "Karnataka", "IN"),
)
_SYSTEMS = (
    ("Mac OS X", "Safari", '"17.5"', 1080, 1920, "web"),
    ("Windows", "Chrome", "128", 1440, 2560, "web"),
    ("Android", "Chrome", '"91.0.4472.101"', 2400, 1080, "android"),
    ("iOS", "Mobile Safari", "17.5", 2556, 1179, "swift"),
    ("Linux", "Firefox", "130", 1080, 1920, "Segment: analytics-wordpress"),
)


@dataclass(frozen=True, slots=True)
class Material:
    """Pieces of property lists, each starting with a comma; `users` pairs a distinct_id with its piece."""

    users: tuple[tuple[bytes, bytes], ...]
    pages: tuple[bytes, ...]
    details: tuple[tuple[bytes, ...], ...]
    extras: tuple[bytes, ...]


@lru_cache(maxsize=4)
def material(seed: int) -> Material:
    """Return the pieces for *seed*."""
    draw = Random(f"{seed}:material")
    return Material(
        users=tuple(_user(draw, number) for number in range(USERS)),
        pages=tuple(_page(draw) for _ in range(PAGES)),
        details=tuple(tuple(_detail(draw, name) for _ in range(DETAILS)) for name in NAMES[: len(EVENTS)]),
        extras=tuple(_extra(draw) for _ in range(EXTRAS)),
    )


def text(value: bytes) -> str | None:
    """Return a JSON scalar as text: strings without quotes, None for null or absent values, any other value unchanged."""
    if value in {b"", b"null"}:
        return None
    if value[0] != ord('"'):
        return value.decode()
    if b"\\" in value:
        return str(json.loads(value))
    return value[1:-1].decode()


def _user(draw: Random, number: int) -> tuple[bytes, bytes]:
    system, browser, version, height, width, library = draw.choice(_SYSTEMS)
    city, region, country = draw.choice(CITIES)
    device = f"{draw.getrandbits(32):08x}-{draw.getrandbits(16):04x}-4aa1-{draw.getrandbits(48):012x}"
    has_user_id = draw.random() < 0.5
    distinct_id = f"user-{number}" if has_user_id else f"$device:{device}"
    piece = (
        f',"$device_id":"{device}"'
        + (f',"$user_id":"user-{number}"' if has_user_id else "")
        + f',"$os":"{system}","$browser":"{browser}","$browser_version":{version}'
        f',"$screen_height":{height},"$screen_width":{width},"$city":"{city}","$region":"{region}"'
        f',"mp_country_code":"{country}","mp_lib":"{library}","$lib_version":"2.{draw.randrange(40, 72)}.0"'
        f',"account_id":{draw.randrange(10**18, 9 * 10**18)}'
        f',"plan":{draw.choice(("null", json.dumps("free"), json.dumps("team")))}'
    )
    return f'"{distinct_id}"'.encode(), piece.encode()


def _page(draw: Random) -> bytes:
    path = "/".join(draw.choices(("shop", "blog", "docs", "pricing", "über-uns", "search"), k=2))
    source = draw.choice(("google", "newsletter", "direct", "partner"))
    return (
        f',"$current_url":"https://www.example.com/{path}?id={draw.randrange(10**6)}&ref={source}"'
        f',"$initial_referrer":"$direct","utm_source":"{source}"'
        f',"UTM_Medium":"{draw.choice(("cpc", "Email", "<null>", "undefined"))}"'
        f',"page title":"{path.title()} · Example"'
    ).encode()


def _detail(draw: Random, name: str) -> bytes:
    if name == "Order Completed":
        cart = [
            {"Brand": draw.choice(("Puma", "Adidas", "Pingüino")), "Price": draw.randrange(1, 20000) / 100}
            for _ in range(draw.randrange(1, 4))
        ]
        goods = json.dumps(cart, separators=(",", ":"), ensure_ascii=False)
        return f',"Cart":{goods},"coupon":null,"total":{draw.randrange(100)}.10'.encode()
    if name == "$identify":
        return (
            f',"$identified_id":"user-{draw.randrange(USERS)}","$anon_id":"{draw.getrandbits(64):x}"'.encode()
        )
    return (
        f',"$duration":{draw.randrange(10**5) / 1000}'
        f',"Experiments":{{"Onboarding":"{draw.choice(("Quick", "Slow"))}","n":{{"d":{draw.randrange(9)}}}}}'
    ).encode()


def _extra(draw: Random) -> bytes:
    """Return two random difficult properties and a plain one."""
    digits = str(draw.randrange(10**29, 10**30))
    difficult = (
        ',"message":"first\u2028second\u2029third\u0085fourth"',
        r',"greeting":"Andr\u00e9 says \"hi\"\n\tand {more} \/ \\"',
        f',"order_id":{int(digits[:19]) % 2**63}',
        f',"ledger_id":"{digits}"',
        f',"precise":0.{digits[:25]}',
        f',"amount":{digits[:6]}.{digits[6:25]}',
        ',"ratio":1E5,"tiny":-0.0,"one":1.0,"huge":1e308',
        ',"emoji 🎈 key":"👩‍👩‍👧 ok","":"empty key"',
        ',"properties":{"event":"inner","properties":{}},"event":"not this one"',
        r',"text":"a \",\"properties\":{ b","a.b":{"c d":[1,[2,[]],{}]}',
        ',"tags":[],"list":[null,true,"x",1.5e-7,{"k":"ключ"}]',
        ',"twice":1,"twice":"two"',
    )
    plain = f',"session":"{draw.getrandbits(48):012x}"'
    return "".join([*draw.sample(difficult, 2), plain]).encode()
