import re
from html.parser import HTMLParser

import msgspec

from bedside.demo.report import render_report, table
from bedside.demo.result import Check, Result, Scene

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Balance(HTMLParser):
    """Fails at a tag that does not close the one that is open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse(page: str) -> str:
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    return " ".join(" ".join(balance.text).split())


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(result: Result) -> None:
    page = render_report(result)

    parse(page)
    assert "$" not in page
    assert not re.search(r"""(src|href)\s*=|url\(|@import|<script""", page)
    assert page.count("<svg") == 5


def test_the_page_shows_the_figures_and_the_scenes(result: Result) -> None:
    words = parse(render_report(result))

    for figure in ("0.860", "0.580", "0.870", "99.1%", "51,204 bytes", "hospital-b refused: too few devices"):
        assert figure in words
    assert "all 6 checks hold" in words
    assert result.scenes[0].sentence in words


def test_a_failed_check_is_not_hidden(result: Result) -> None:
    scene = Scene("device-killed", "A device was killed.", 3.0, (Check("counted-once", False, "counted twice"),))

    words = parse(render_report(msgspec.structs.replace(result, scenes=(scene,))))

    assert "1 of 6 checks does not hold" in words
    assert "✗ does not hold counted twice" in words


def test_a_slow_run_is_said_beside_the_checks(result: Result) -> None:
    words = parse(render_report(msgspec.structs.replace(result, run_seconds=157.0)))

    assert "all 5 checks hold; the run was slow" in words
    assert "△ slow the run took 157 s" in words


def test_words_from_the_run_cannot_become_markup(result: Result) -> None:
    scene = Scene("policy-raised", "<script>alert(1)</script>", 3.0, ())

    page = render_report(msgspec.structs.replace(result, scenes=(scene,)))

    assert "<script" not in page
    assert table(("a",), [("<b>",)]).count("<b>") == 0


def test_no_rounds_still_make_a_page(result: Result) -> None:
    parse(render_report(msgspec.structs.replace(result, history=())))
