"""Find places for texts beside the points of a plot: near their points, covering neither points nor each other.

Pure geometry in any unit with the y axis upwards; what the texts say and how they are drawn is not known here.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Size = tuple[float, float]  # width, height
Box = tuple[float, float, float, float]  # left, bottom, right, top

POINT_SIZE = 10.0
NEAR = 13.0  # distance up to which a text needs no line to its point
APART = 20.0  # size of the space around a point in which another's text could be taken for its own
GOOD = 30.0  # distance up to which a place is good
CROSSING, DOUBTFUL = 50.0, 25.0  # what it costs, in distance, to have a line across a text, and to stand by another point
DISTANCES = range(10, 120, 9)
DIRECTIONS = (0, 180, 35, -35, 145, -145, 90, -90, 65, -65, 115, -115)  # degrees, the best first


@dataclass(frozen=True)
class Place:
    """Where a text stands, which of the texts it is, and where the line from its point ends if it needs one."""

    box: Box
    choice: int
    leader_end: Point | None


def place_texts(points: Sequence[Point], texts: Sequence[Sequence[Size]], frame: Box) -> list[Place | None]:
    """Return a place inside `frame` for one text per point; there may be fewer texts than points, the most important first.

    `texts` has the sizes of the texts that a point may get: the first of them that finds a good place, or else the last in the
    best place there is. Where there is none, the point gets None. A good place is near, and belongs to no other point.
    """
    taken, written, places = [_around(point, (POINT_SIZE, POINT_SIZE)) for point in points], list[Box](), list[Place | None]()
    for point, sizes in zip(points, texts, strict=False):
        others = [_around(other, (APART, APART)) for other in points if other != point]
        found = None
        for choice, size in enumerate(sizes):
            free = [
                (distance + _cost(_line(point, box), box, written, others), box, choice)
                for distance, box in _candidates(point, size)
                if _is_inside(box, frame) and not _overlap([box], taken)
            ]
            found = min(free, default=None)
            if found and found[0] <= GOOD:
                break
        if found is None:
            places.append(None)
            continue
        _, box, choice = found
        line = _line(point, box)
        taken += [box, *line]
        written.append(box)
        places.append(Place(box, choice, _nearest(point, box) if line else None))
    return places


def _cost(line: Sequence[Box], box: Box, written: Sequence[Box], others: Sequence[Box]) -> float:
    """Return what a place is worse by than one that is free of doubt, in distance."""
    return CROSSING * _overlap(line, written) + DOUBTFUL * (bool(line) and _overlap([box], others))


def _candidates(point: Point, size: Size) -> Iterator[tuple[float, Box]]:
    for distance in DISTANCES:
        for preference, degrees in enumerate(DIRECTIONS):
            cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            aside = 0.0 if abs(degrees) == 90 else math.copysign(size[0] / 2, cosine)
            yield distance + preference / 4, _around((point[0] + distance * cosine + aside, point[1] + distance * sine), size)


def _line(point: Point, box: Box) -> list[Box]:
    """Return the line from a point to its text as small boxes along it; none where the text is near."""
    end = _nearest(point, box)
    if math.dist(point, end) <= NEAR:
        return []
    parts = [step / 12 for step in range(13)]
    return [_around((point[0] + part * (end[0] - point[0]), point[1] + part * (end[1] - point[1])), (1, 1)) for part in parts]


def _nearest(point: Point, box: Box) -> Point:
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _around(centre: Point, size: Size) -> Box:
    return centre[0] - size[0] / 2, centre[1] - size[1] / 2, centre[0] + size[0] / 2, centre[1] + size[1] / 2


def _is_inside(box: Box, frame: Box) -> bool:
    return frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _overlap(boxes: Iterable[Box], others: Sequence[Box]) -> bool:
    return any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for box in boxes for other in others
    )
