"""Places for texts beside points."""

import math

from hypothesis import given
from hypothesis import strategies as st

from packhouse.report.labels import Box, place_texts

FRAME = (0.0, 0.0, 400.0, 300.0)
POINTS = st.lists(st.tuples(st.floats(20, 380), st.floats(20, 280)), min_size=1, max_size=40)


def covers(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@given(POINTS)
def test_texts_stay_in_the_frame_and_cover_neither_points_nor_each_other(points: list[tuple[float, float]]) -> None:
    places = place_texts(points, [[(90.0, 10.0), (10.0, 10.0)]] * 12, FRAME)
    boxes = [place.box for place in places if place]
    for index, box in enumerate(boxes):
        assert FRAME[0] <= box[0] < box[2] <= FRAME[2]
        assert FRAME[1] <= box[1] < box[3] <= FRAME[3]
        assert not any(covers(box, other) for other in boxes[:index])
        assert not any(box[0] < x < box[2] and box[1] < y < box[3] for x, y in points)


def test_text_of_a_lonely_point_stands_right_beside_it() -> None:
    (place,) = place_texts([(100.0, 100.0)], [[(50.0, 10.0)]], FRAME)
    assert place is not None
    assert place.leader_end is None
    assert math.dist(place.box[:2], (110.0, 95.0)) < 1


def test_text_at_the_right_edge_moves_to_the_left() -> None:
    (place,) = place_texts([(390.0, 100.0)], [[(50.0, 10.0)]], FRAME)
    assert place is not None
    assert place.box[2] < 390


def test_long_texts_in_a_crowd_give_way_to_short_ones() -> None:
    places = place_texts([(200.0 + index, 150.0) for index in range(12)], [[(150.0, 10.0), (10.0, 10.0)]] * 12, FRAME)
    choices = [place.choice for place in places if place]
    assert {0, 1} == set(choices)


def test_point_that_leaves_no_room_gets_no_text() -> None:
    assert place_texts([(200.0, 150.0)], [[(500.0, 10.0)]], FRAME) == [None]
