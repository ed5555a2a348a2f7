from __future__ import annotations

import pytest

from bladeroot import errors, events


@pytest.mark.parametrize(
    "event",
    [
        events.StepStarted(step="format", title="Make filesystems"),
        events.StepFinished(subject="web01", step="format", duration_s=0.5),
        events.Progress(step="runtime", done=1, total=2),
        events.SwarmStats(
            artefact="runtime",
            peers=1,
            sources=1,
            have_bytes=1,
            total_bytes=2,
            down_bytes=1,
            up_bytes=0,
        ),
        events.Note(text="hello"),
        events.Warned(text="look", hint="there"),
        events.Failed(text="no", exit_code=40),
        events.Finished(facts={"bytes": 1}),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_survives_being_written_down(event: events.Event) -> None:
    assert events.from_mapping({**events.to_mapping(event), "at": 12.5}) == event


def test_every_event_class_can_be_written_down() -> None:
    assert set(events.EVENT_CLASSES) == set(events.Event.__subclasses__())


@pytest.mark.parametrize("mapping", [{}, {"event": "Nonsense"}, {"event": "Progress", "step": "x"}])
def test_what_is_no_event(mapping: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"not an event|incomplete event"):
        events.from_mapping(mapping)


def test_a_subject_is_filled_in_but_not_replaced() -> None:
    heard: list[events.Event] = []
    report = events.about("web01", heard.append)
    report(events.Note(text="a"))
    report(events.Note(subject="web02", text="b"))
    assert [event.subject for event in heard] == ["web01", "web02"]


def test_every_kind_of_error_has_an_exit_code_and_a_line_for_the_operator() -> None:
    classes = list(errors.iter_error_classes())
    codes = [error_class.exit_code for error_class in classes]
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 256 and code != 126 for code in codes)
    assert all((error_class.__doc__ or "").strip() for error_class in classes)
