"""The words of an explanation: nothing is claimed that was not measured, and doubt comes first."""

from __future__ import annotations

import contextlib
import io
import re
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from rich.console import Console

from xfr_plugin import Explanation, Verification
from xfr_plugin.cli.output import print_decision
from xfr_plugin.cli.tables import region_table
from xfr_plugin.explanation.explanation import RegionEvidence
from xfr_plugin.explanation.faithfulness import Faithfulness, FaithfulnessRow, Verdict, verdict_of
from xfr_plugin.explanation.figures.explanation import decision_title
from xfr_plugin.explanation.words import (
    COMPONENTS,
    check_in_words,
    component_name,
    components,
    decision_in_words,
    headline,
    sentences,
    share_of_area,
    strength_in_words,
    tension_in_words,
)
from xfr_plugin.faces import template_regions
from xfr_plugin.recognition import Provenance
from xfr_plugin.recognition.strength import LlrSupport, Strength

SUPPORT = LlrSupport(
    lower_bound=-1.5, upper_bound=4.0, people=100, pairs=(50, 4950), covariance=(4.0, -1.0, 0.5)
)


def decision(score: float = 0.5, strength: Strength | None = None) -> Verification:
    return Verification(
        score=score, threshold=0.3, threshold_source="given", recognizer="r", provenance=Provenance(),
        strength=strength,
    )  # fmt: skip


def row(region: str, evidence: float, error: float | None = None, pixels: int = 100) -> RegionEvidence:
    return RegionEvidence(
        region=region, pixels=pixels, evidence=evidence, similar=max(evidence, 0.0), dissimilar=max(-evidence, 0.0),
        error=error,
    )  # fmt: skip


def said(*rows: RegionEvidence, score: float = 0.5, check: Faithfulness | None = None) -> str:
    return " ".join(sentences(decision(score), (rows, rows), (), (), check))


def checked(statistic: float | None) -> Faithfulness:
    verdict: Verdict = verdict_of(statistic)
    return Faithfulness(verdict=verdict, statistic=statistic, rows=(), rule="", forwards=0)


def test_every_region_has_a_plain_name() -> None:
    assert set(template_regions().names) <= COMPONENTS.keys()
    assert component_name("left_brow") == "left eyebrow"
    assert component_name("third_eye") == "third eye"


@pytest.mark.parametrize(
    ("score", "side"),
    [
        (0.3, "at"), (np.nextafter(0.3, 1), "above"), (np.nextafter(0.3, 0), "below"), (0.30004, "above"),
        (0.2996, "below"), (0.2999999, "below"), (0.3049, "above"), (-0.00001, "below"),
    ],
)  # fmt: skip
def test_what_is_written_of_a_score_never_contradicts_the_decision(score: float, side: str) -> None:
    """Score and threshold look equal only where they are, and the distance is 0 only then."""
    made = decision(score)
    explanation = cast(
        Explanation,
        SimpleNamespace(
            verification=made, probe=SimpleNamespace(regions=()), reference=SimpleNamespace(regions=()),
            faithfulness=None,
        ),
    )  # fmt: skip
    first = headline(explanation).partition(";")[0]
    assert f" is {side} the threshold" in first
    assert f"{side} the threshold" in decision_in_words(made)
    title, printed = decision_title(made), printed_decision(made)
    for line in (first, decision_in_words(made), title, printed):
        written = [re.search(rf"{name} ([−\-.\d]+)", line) for name in ("score", "threshold")]
        assert (written[0][1] == written[1][1]) == (side == "at"), line
    distance = re.search(r"is ([.\d]+) (above|below)", decision_in_words(made))
    margin = float(re.search(r"margin (\S+)", printed)[1])
    assert (margin == 0) == (distance is None) == (side == "at")
    assert distance is None or float(distance[1]) == abs(margin) or abs(margin) > 1e-4
    assert ("NO MATCH" in title) == ("NO MATCH" in printed) == (not made.match) == (side == "below")


def printed_decision(made: Verification) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        print_decision(made)
    return stream.getvalue()


def test_only_what_exceeds_twice_its_error_is_named() -> None:
    words = said(row("nose", 5, 1), row("mouth", 4, 2.1), row("chin", -3, 0.5))
    assert "most for a match: nose (+42 ± 8 %); most against: chin and jaw (−25 ± 4 %)" in words
    assert "mouth" not in words
    assert "nothing clear" in said(row("nose", 5, 4), row("mouth", -5, 4))


def test_a_share_of_nothing_has_no_sign() -> None:
    values = [
        part.value for part in components((row("nose", 5, 1), row("mouth", -0.01, 1), row("chin", 0.0)))
    ]
    assert values == ["+100 ± 20 %", "0 ± 20 %", "0 %"]


def test_unknown_errors_are_said() -> None:
    assert "nobody knows how sure" in said(row("nose", 5), row("mouth", -5))
    assert "nobody knows how sure" not in said(row("nose", 5, 1))


@pytest.mark.parametrize("region", ["outside", "hair", "background"])
def test_hair_and_background_never_argue_as_the_face(region: str) -> None:
    words = said(row(region, 9, 1), row("nose", 3, 0.1))
    assert "most for a match: nose" in words
    assert f"Not of the face: {component_name(region)} +75 ± 8 %" in words
    assert "Most of the evidence in the probe is not of the face" in words


def test_doubt_comes_first() -> None:
    rows = row("nose", 5, 1), row("mouth", -5, 1)
    assert said(*rows, check=checked(-3.0)).startswith(
        "Do not rely on these maps: the check contradicts them."
    )
    assert said(*rows, check=checked(0.5)).startswith("Do not rely on these maps")
    assert said(*rows, check=checked(None)).startswith("Do not rely on these maps")
    assert said(*rows, check=checked(3.0)).startswith(
        "Match: the score 0.500 is 0.200 above the threshold 0.300"
    )
    assert "were not tested" in said(*rows)


def test_the_check_is_one_line_and_what_it_tried_comes_after_it() -> None:
    rows = [
        FaithfulnessRow(
            face="probe", regions=("mouth",), said=share, replaced=-0.2, exchanged=0.001, reverses=False
        )
        for share in (0.2, -0.001)
    ]
    check = checked(3.0).model_copy(update={"rows": tuple(rows)})
    line = check_in_words(check, tried=False)
    assert line.endswith("(z = +3.00).")
    assert check_in_words(check) == (
        f"{line} Change of the score: probe, mouth (+20 %): −0.20 with a stranger's, 0.00 with the partner's; "
        "probe, mouth (0 %): −0.20 with a stranger's, 0.00 with the partner's."
    )


def test_the_first_line_names_no_part_that_argues_for_in_one_face_and_against_in_the_other() -> None:
    """A mean would say that a nose argues for a match, which is another one's in one of the two faces."""

    def line(*reference: RegionEvidence) -> str:
        faces = [
            SimpleNamespace(regions=(row("nose", 9, 1), row("mouth", 5, 1))),
            SimpleNamespace(regions=reference),
        ]
        found = SimpleNamespace(
            probe=faces[0], reference=faces[1], verification=decision(), faithfulness=None
        )
        return headline(cast(Explanation, found))

    words = line(row("nose", -4, 1), row("mouth", 5, 1))
    assert "most for a match: mouth; most against: nothing clear" in words
    assert words.endswith("for in one face, against in the other: nose.")
    assert line(row("nose", -4, 3), row("mouth", 5, 1)).startswith(
        "The score 0.50 is above the threshold 0.30; most for a match: mouth"
    )
    assert "in one face" not in line(row("nose", 4, 1), row("mouth", 5, 1))


def test_hair_that_argues_most_is_said_in_the_first_line() -> None:
    def line(*rows: RegionEvidence) -> str:
        face = SimpleNamespace(regions=rows)
        found = SimpleNamespace(probe=face, reference=face, verification=decision(), faithfulness=None)
        return headline(cast(Explanation, found))

    rows = row("nose", 3, 0.1), row("mouth", -2, 0.1), row("chin", 6, 0.1)
    words = line(*rows, row("hair", -9, 0.1))
    assert "most for a match: chin and jaw, and nose; most against: mouth" in words
    assert "; hair, which is not the face, argues more against a match than any of these" in words
    assert "argues more for" not in words
    assert "argues more" not in line(*rows, row("hair", -1, 0.1))


def test_poor_photographs_are_no_two_people() -> None:
    lines = sentences(decision(0.1), (None, None), ("probe: the face is blurred",), ("m: caveat",))
    assert lines[0].startswith("No match")
    assert "Read with care: probe: the face is blurred." in lines
    assert any("no match does not say two people" in line for line in lines)
    assert "m: caveat." in lines
    assert lines[-1].startswith("This shows what moves the score")


def test_turned_faces_are_named() -> None:
    turned = said(row("right_cheek", 5, 1, pixels=10), row("left_cheek", 5, 1, pixels=90))
    assert "The probe is turned: its right cheek covers 10 % of the picture, the other 90 %" in turned
    hidden = said(row("right_cheek", 0, 1, pixels=0), row("left_cheek", 5, 1, pixels=90))
    assert "its right cheek is not seen, the other 100 %; what argues on that side, for or against" in hidden
    assert "turned" not in said(row("right_cheek", 5, 1, pixels=40), row("left_cheek", 5, 1, pixels=60))


def test_an_empty_map_has_nothing_to_explain() -> None:
    assert "nothing to explain in the probe" in said(row("nose", 0.0), row("mouth", 0.0))


def test_shares_of_area_are_never_nothing_of_something() -> None:
    assert [share_of_area(value) for value in (0, 0.04, 0.44, 12.3)] == [
        "not seen",
        "< 0.1 %",
        "0.4 %",
        "12 %",
    ]
    assert [part.area for part in components((row("nose", 1, pixels=1), row("mouth", 1, pixels=3)))] == [
        25,
        75,
    ]


def test_what_is_not_seen_is_said_in_the_table_of_the_terminal_too() -> None:
    face = SimpleNamespace(regions=(row("nose", 1, 0.1), row("left_ear", 0.0, pixels=0)))
    found = SimpleNamespace(method="m", probe=face, reference=face)
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        Console(width=80).print(region_table(cast(Explanation, found)))
    (line,) = (line for line in stream.getvalue().splitlines() if "left ear" in line)
    assert line.count("not seen") == 2


def test_ratios_are_bounded_and_have_the_words_of_their_band() -> None:
    def words(llr: float, score: float = 0.5) -> str:
        return strength_in_words(SUPPORT.strength(score, llr, "toy"))

    most = "10,000 times as likely for one person as for two, the most that the data can show: "
    assert f"{most}very strong support for one person (" in words(30.0)
    assert "interval" not in words(30.0), "of what lies beyond the bound nobody knows an interval"
    assert "for two people as for one, the most that the data can show: moderate support for two" in words(
        -30.0
    )
    assert "as for two: no support either way (" in words(0.1)
    assert "95 % interval" in words(0.1)
    assert "relatives and look-alikes" in words(30.0)
    assert not any("relatives" in words(llr) for llr in (0.1, -30.0)), "they can only raise a score"
    found = SUPPORT.strength(0.5, 2.0, "toy")
    assert found.low < found.log10_lr < found.high
    assert not found.at_bound
    assert found.high - found.log10_lr == pytest.approx(1.959964 * 0.5**0.5 / 2.302585, rel=1e-3)


@pytest.mark.parametrize(
    ("ratio", "score", "source", "words"),
    [
        (0.2, 0.29, "at most 1 false match in 1,000", "keeps false matches rare"),
        (4.0, 0.29, "given", "The threshold is high"),
        (-1.5, 0.31, "given", "The threshold is low"),
        (-1.5, 0.29, "given", ""),
        (4.0, 0.31, "given", ""),
        (0.0, 0.29, "given", ""),
    ],
)
def test_a_decision_against_what_the_score_speaks_for_is_explained(
    ratio: float, score: float, source: str, words: str
) -> None:
    """By the threshold that made it, and in no words that the ratio contradicts."""
    strength = Strength(
        log10_lr=ratio, low=ratio, high=ratio, lower_bound=-1.5, upper_bound=4.0, at_bound=False, dataset="d",
        people=9,
    )  # fmt: skip
    made = decision(score, strength).model_copy(update={"threshold_source": source})
    said = tension_in_words(made)
    assert words in said
    assert bool(said) == bool(words)
    assert "a little" not in said
    assert (said in " ".join(sentences(made, (None, None), (), ()))) or not said
