"""Deterministic user profiles: the same seed gives the same profiles, and each profile can be created on its own.

The first profiles belong to the users of the events, so profiles and events can be joined. A profile has the text that is
sent and the text that a correct table contains. They differ only where a lone surrogate must be repaired.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from random import Random
from typing import NamedTuple
from zlib import crc32

from mixpanel_export.simulator.awkward import JSON_PIECES
from mixpanel_export.simulator.content import CITIES, USERS, Text, material, text
from mixpanel_export.simulator.events import Profile

_BATCH = 256
_WHOLE = 0x10000
_YEAR = 365 * 86_400


@dataclass(frozen=True, slots=True)
class Cohort:
    """A cohort that requests for profiles can select.

    Args:
        id: The id of the cohort.
        share: Share of the profiles that are members, from 0 to 1.
        without_profile: Number of additional members that have no profile.
    """

    id: int
    share: float = 0.5
    without_profile: int = 0


class ProfileRow(NamedTuple):
    """A profile's row in a table: the id as text, the exact text of the properties, and `$last_seen` in naive UTC."""

    distinct_id: str
    properties: str
    last_seen: datetime | None


class UserProfile(NamedTuple):
    """A profile: the id and the properties as JSON text.

    Attributes:
        distinct_id: The id.
        properties: The properties; empty if the profile is sent without them.
        unusual: Whether the profile is sent in an unusual JSON format.
    """

    distinct_id: Text
    properties: Text
    unusual: int = 0

    @property
    def key(self) -> str:
        """The id as text."""
        return text(self.distinct_id.stored) or ""

    @property
    def row(self) -> ProfileRow:
        """The profile's row in a table."""
        properties = self.properties.stored.decode() or "{}"
        return ProfileRow(self.key, properties, _last_seen(properties))

    def sent(self) -> bytes:
        """Return the profile as it is sent, a JSON object."""
        before, between, after, swapped = _SHAPES[self.unusual % len(_SHAPES)]
        first, second = b'"$distinct_id":' + self.distinct_id.sent, b'"$properties":' + self.properties.sent
        if not self.properties.sent:
            return b"{" + first + b"}"
        if swapped:
            first, second = second, first
        return b"".join((before, first, between, second, after))


_SHAPES = (
    (b"{", b",", b"}", False),
    (b"{", b",", b"}", True),
    (b"{ ", b" ,\n\t", b" }", False),
    (b'{"$group_key":null,"$properties_of":{"$properties":{}},', b",", b"}", False),
    (b"{", b',"more":[{"$distinct_id":"inner","$properties":{}}],', b',"version":1.0}', False),
    (b"{", b",", b',"note":"},{\\"$distinct_id\\":\\"x\\""}', True),
)


@dataclass(frozen=True, slots=True)
class Revision:
    """The state of a project's profiles. In each revision, some profiles are new, changed or deleted."""

    number: int = 0
    group: int = 0
    """The number of the group type; 0 for users."""
    random_bytes: int = 0
    """The number of random bytes in each profile, in addition to its usual properties."""


def generated(profile: Profile, revision: Revision, numbers: Iterable[int]) -> Iterator[UserProfile]:
    """Yield the profiles with these *numbers*, which should be in ascending order."""
    batch, bits, filling, size = -1, array("Q"), b"", revision.random_bytes
    for number in numbers:
        if number // _BATCH != batch:
            batch = number // _BATCH
            draw = Random(f"{profile.seed}:profiles:{revision.group}:{batch}")
            bits = array("Q")
            bits.frombytes(draw.randbytes(24 * _BATCH))
            filling = draw.randbytes(size * _BATCH).hex().encode()
        at = number % _BATCH
        more = filling[2 * size * at : 2 * size * (at + 1)]
        yield _profile(profile, revision, number, bits[3 * at : 3 * at + 3], more)


def existing(profile: Profile, revision: Revision, count: int) -> range | list[int]:
    """Return the numbers of the profiles that exist in *revision*. In revision 0, *count* profiles exist."""
    if not revision.number:
        return range(count)
    added = revision.number * (count // 50 + 1)
    salt = crc32(f"{profile.seed}:{revision.group}".encode())
    return [
        number
        for number in range(count + added)
        if not any(crc32(b"%d:%d" % (number, step), salt) % 40 == 0 for step in range(revision.number))
    ]


def without_profile(profile: Profile, cohort: Cohort) -> list[UserProfile]:
    """Return the members of *cohort* that have no profile."""
    ids = (
        b'"member-%d-%d-%d"' % (profile.seed, cohort.id, number) for number in range(cohort.without_profile)
    )
    return [UserProfile(Text(each, each), Text(b"{}", b"{}")) for each in ids]


def _profile(
    profile: Profile, revision: Revision, number: int, bits: Sequence[int], filling: bytes
) -> UserProfile:
    first, second, third = bits
    changed = first ^ _changes(number, revision)
    distinct_id = _distinct_id(profile, revision, number)
    created = 1_640_995_200 + second % _YEAR
    seen = created + _YEAR + changed % _YEAR
    members = [
        b'"$last_seen":"%s"' % _moment(seen),
        b'"$created":"%s"' % _moment(created),
        _pieces(profile.seed)[second >> 32 & 255],
        b'"$email":"%x@example.com","token":"%016x%08x"' % (number, third, second & 0xFFFFFFFF),
        b'"logins":%d,"balance":%d.%02d' % (changed >> 20 & 1023, changed >> 32 & 0xFFFF, changed >> 50 & 63),
    ]
    if filling:
        members.append(b'"random":"%s"' % filling)
    odd, awkward = round(profile.odd * _WHOLE), round(profile.awkward * _WHOLE)
    pick = first >> 48
    if pick >= odd + awkward:
        whole = b"{" + b",".join(members) + b"}"
        return UserProfile(Text(distinct_id, distinct_id), Text(whole, whole))
    draw = Random(f"{profile.seed}:{revision.group}:{number}")
    if pick < odd:
        return _odd(draw, number, distinct_id, members)
    return _awkward(draw, distinct_id, members)


def _changes(number: int, revision: Revision) -> int:
    """Return bits for the properties that change. Each revision changes the bits of a tenth of the profiles."""
    bits = 0
    for step in range(1, revision.number + 1):
        hashed = crc32(b"%d:%d:change" % (number, step))
        if hashed % 10 == 0:
            bits = hashed << 16
    return bits


def _distinct_id(profile: Profile, revision: Revision, number: int) -> bytes:
    if revision.group:
        return b'"Company %d-%d"' % (revision.group, number)
    return material(profile.seed).users[number][0] if number < USERS else b'"user-%d"' % number


@lru_cache(maxsize=4)
def _pieces(seed: int) -> tuple[bytes, ...]:
    """Return lists of members that many profiles share."""
    draw = Random(f"{seed}:profiles")
    pieces = []
    for _ in range(256):
        city, region, country = draw.choice(CITIES)
        tags = json.dumps(
            draw.sample(("new", "beta", "vip", "École", "x"), draw.randrange(4)), ensure_ascii=False
        )
        pieces.append(
            f'"$city":"{city}","$region":"{region}","$country_code":"{country}"'
            f',"plan":{draw.choice(("null", json.dumps("free"), json.dumps("team")))},"tags":{tags}'
            f',"company":{{"name":"ACME {draw.randrange(99)}","seats":{draw.randrange(500)}}}'
            f',"referrer":"{draw.choice(("<null>", "undefined", "$direct", ""))}","active":{draw.choice(("true", "false"))}'.encode()
        )
    return tuple(pieces)


def _moment(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


_ODD_SEEN = (
    b"",
    b'"$last_seen":null',
    b'"$last_seen":1709553600',
    b'"$last_seen":"<null>"',
    b'"$last_seen":["never"]',
)


def _odd(draw: Random, number: int, distinct_id: bytes, members: list[bytes]) -> UserProfile:
    """Return the profile with an unusual id, an unusual or missing `$last_seen`, or unusual or missing properties."""
    ids = (
        b"%d" % number,
        b"-%d" % (number + 1),
        b"%d" % (2**53 + 1 + number),
        b"%d" % (2**63 + number),
        b"%d" % (10**29 + number),
        b'"%040d"' % number,
        rb'"J\u00f6rg \"%d\""' % number,
        rb'"\ud83d\ude00 %d\/"' % number,
        f'"東京\u2028 {number}"'.encode(),
        b'" %d "' % number,
        b'"$device:%d\\\\"' % number,
        b'"%s%d"' % (b"long" * 70, number),
    )
    kind = draw.randrange(4)
    if kind < 2:
        distinct_id = draw.choice(ids)
    elif kind == 2:
        members = [member for member in (draw.choice(_ODD_SEEN), *members[1:]) if member]
    whole = b"{" + b",".join(members) + b"}"
    if kind == 3:
        whole = draw.choice((b"", b"{}", whole.replace(b'":', b'" : ')))
    return UserProfile(Text(distinct_id, distinct_id), Text(whole, whole))


def _awkward(draw: Random, distinct_id: bytes, members: list[bytes]) -> UserProfile:
    """Return the profile with some awkward members, in a random order, and perhaps in an unusual format."""
    parts = [Text(member, member) for member in members] + draw.sample(JSON_PIECES, draw.randint(1, 3))
    draw.shuffle(parts)
    sent, stored = (b"{" + b",".join(part[form] for part in parts) + b"}" for form in (0, 1))
    return UserProfile(Text(distinct_id, distinct_id), Text(sent, stored), draw.randrange(len(_SHAPES)))


def selected_members(properties: Text, names: frozenset[str]) -> Text:
    """Return only the properties with these *names*, in the same order and with the same text."""
    if not properties.sent:
        return properties
    pairs = zip(_members(properties.sent), _members(properties.stored), strict=True)
    parts = [(sent, stored) for (_, sent), (name, stored) in pairs if name in names]
    sent, stored = (b"{" + b",".join(part[form] for part in parts) + b"}" for form in (0, 1))
    return Text(sent, stored)


_DECODER = json.JSONDecoder()


def _members(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the text of each member of an object."""
    source = whole.decode()
    at = source.index("{") + 1
    while True:
        at += len(source) - at - len(source[at:].lstrip(" \t\r\n,"))
        if source[at] == "}":
            return
        name, end = _DECODER.raw_decode(source, at)
        end = source.index(":", end) + 1
        end += len(source) - end - len(source[end:].lstrip())
        _, end = _DECODER.raw_decode(source, end)
        yield name, source[at:end].encode()
        at = end


def _last_seen(properties: str) -> datetime | None:
    value = _first_of(properties, "$last_seen")
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S") if isinstance(value, str) else None  # noqa: DTZ007
    except ValueError:
        return None


def _first_of(properties: str, name: str) -> object:
    """Return the value of the first member with this *name*; None if there is none."""
    return dict(reversed(json.loads(properties, object_pairs_hook=list))).get(name)
