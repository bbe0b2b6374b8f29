from typing import Any

from detdistill.show.picks import most_different

Json = dict[str, Any]


def truth(objects: dict[int, list[list[float]]]) -> Json:
    return {
        "images": [{"id": image, "width": 100, "height": 100} for image in objects],
        "annotations": [
            {"image_id": image, "category_id": 7, "bbox": box, "iscrowd": 0}
            for image, boxes in objects.items()
            for box in boxes
        ],
        "categories": [{"id": 7, "name": "thing"}],
    }


def find(image: int, box: list[float], score: float = 0.9) -> Json:
    return {"image_id": image, "category_id": 7, "bbox": box, "score": score}


HERE, THERE = [10.0, 10.0, 20.0, 20.0], [60.0, 60.0, 20.0, 20.0]


def test_images_on_which_detectors_disagree_come_first() -> None:
    scene = truth({1: [HERE], 2: [HERE, THERE], 3: [HERE]})
    found = {
        "teacher": [find(1, HERE), find(2, HERE), find(2, THERE), find(3, HERE)],
        "student": [find(1, HERE)],
    }

    positions = [pick.position for pick in most_different(scene, found, 2)]

    assert positions == [1, 2]


def test_false_alarms_decide_between_equals() -> None:
    scene = truth({1: [HERE], 2: [HERE]})
    found = {"teacher": [], "student": [find(2, THERE)]}

    (pick,) = most_different(scene, found, 1)

    assert pick.position == 1
    assert pick.outcome("student").false_alarms == 1


def test_unsure_detections_do_not_count() -> None:
    scene = truth({1: [HERE]})

    (pick,) = most_different(scene, {"student": [find(1, HERE, score=0.1)]}, 1)

    assert pick.outcome("student").found == frozenset()
    assert pick.outcome("student").false_alarms == 0


def test_images_on_which_all_agree_are_not_shown() -> None:
    scene = truth({1: [HERE], 2: []})

    assert most_different(scene, {"teacher": [find(1, HERE)], "student": [find(1, HERE)]}, 2) == []


def test_of_a_single_detector_the_failures_are_shown() -> None:
    scene = truth({1: [HERE], 2: [HERE]})

    (pick,) = most_different(scene, {"student": [find(1, HERE), find(2, THERE)]}, 1)

    assert pick.position == 1
    assert pick.mistakes() == 2
