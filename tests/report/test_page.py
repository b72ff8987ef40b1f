"""A study's page: it holds all it needs, says what is absent, and escapes what the user named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from synq_tune.report.page import MAX_BYTES, REPORT_NAME
from synq_tune.search.reporting import write_report
from synq_tune.study.ledger import Ledger
from tests.report.studies import Page, add_trials, begun, end, repeat


def _page(ledger: Ledger) -> Page:
    path = write_report(ledger.state, ledger.folder)
    assert path == ledger.folder / REPORT_NAME
    assert path.stat().st_size <= MAX_BYTES
    return Page(path.read_text("utf-8"))


def _figures(page: Page) -> list[dict]:
    kinds = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    pairs = zip(kinds, page.scripts, strict=True)
    return [json.loads(text) for kind, text in pairs if kind == "application/json"]


@pytest.fixture(params=["labels", "no labels"])
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    """A study that ran to its end."""
    ledger = begun(tmp_path / "study", has_labels=request.param == "labels")
    add_trials(ledger, 6)
    repeat(ledger, 0, 96.0)
    end(ledger)
    return ledger


def test_a_page_asks_for_nothing(whole: Ledger) -> None:
    """No address but its own parts and data in it; the policy forbids any other to the browser."""
    page = _page(whole)
    assert [link for link in page.links() if not link.startswith(("#", "data:"))] == []
    assert not any(tag in ("iframe", "object", "embed", "base") for tag, _ in page.tags)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none';") and "http" not in policy
    style = re.search(r"<style>(.*?)</style>", (whole.folder / REPORT_NAME).read_text(), re.S)
    assert "url(" not in style[1] and "@import" not in style[1]


def test_plotlys_script_is_there_once(whole: Ledger) -> None:
    """One copy, whole: nothing in it ends the element that holds it."""
    library = get_plotlyjs()
    assert "</script" not in library.lower()
    assert _page(whole).scripts.count(library) == 1


def test_the_card_and_the_ladder_say_what_came_out(whole: Ledger) -> None:
    """Numbers are the ledger's, each with its interval."""
    text = _page(whole).text
    assert "W3 A3" in text and "8.0 times smaller than 400 kB" in text
    assert "Time per image 0.25 ms" in text
    assert "the best found 95.25 %" in text and "calibrated on noise diverged" in text
    if whole.state.spec.study.val_data is None:
        assert "95 % interval 88.99 to 98.03 on 96 synthetic images" in text
    else:
        assert "95 % interval 94.00 to 95.50 on 448 images" in text
        assert "4.25 points" in text


def test_why_the_best_was_chosen(whole: Ledger) -> None:
    """The finalist's seeds, their mean, and the two halves where there are labels."""
    text = _page(whole).text
    has_labels = whole.state.spec.study.val_data is not None
    assert "That is trial 0." in text and "failed seeds" in text
    assert "What decided: trial 0: the only configuration that was repeated." in text
    assert ("Choosing half against reporting half" in text) is has_labels


def test_every_figure_is_one_that_plotly_knows(whole: Ledger) -> None:
    """plotly's own schema accepts each, so that no name in it is misspelt."""
    found = _figures(_page(whole))
    assert len(found) >= 8
    for figure in found:
        go.Figure(figure)


def test_the_settings_make_the_same_study(whole: Ledger, tmp_path: Path) -> None:
    """What the page offers to save is a space, which gives the spec of the study."""
    import base64

    from synq_tune.config.load import load_space

    page = _page(whole)
    link = next(a["href"] for t, a in page.tags if a.get("download") == "study.yaml")
    (tmp_path / "study.yaml").write_bytes(base64.b64decode(link.partition("base64,")[2]))
    assert load_space(str(tmp_path / "study.yaml")) == whole.state.spec


EVIL = "<script>alert(1)</script><img src=http://a.example/x onerror=alert(1)>"


def test_what_the_user_named_is_text(tmp_path: Path) -> None:
    """Model, own functions, texts of errors: none of it becomes markup, in the page or a figure."""
    code = tmp_path / f"{EVIL.replace('/', '')}.py"
    code.write_text("def f(activations, gradients):\n    return gradients.mean((2, 3))\n")
    own = f"'{code}:f'"
    ledger = begun(
        tmp_path / "study", f"teacher.model=timm:{EVIL}", f"search.cam={{choice: [cam, {own}]}}"
    )
    add_trials(ledger, 5, error=f"{EVIL} and http://user:secret@host/x")
    clean = begun(tmp_path / "clean")
    add_trials(clean, 5)
    page, without = _page(ledger), _page(clean)
    assert EVIL in page.text and "secret" not in page.text
    assert [t for t, _ in page.tags if t == "img"] == []
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    kinds = [[a.get("type") for t, a in p.tags if t == "script"] for p in (page, without)]
    assert kinds[0] == kinds[1]
    assert not any("<script" in json.dumps(f) or "<img" in json.dumps(f) for f in _figures(page))


@pytest.mark.parametrize("count", [0, 1, 200])
def test_few_trials_and_many(count: int, tmp_path: Path) -> None:
    """A page is whole whatever there is; what there is not is said in a sentence."""
    ledger = begun(tmp_path / "study", f"study.num_trials={max(count, 1)}")
    add_trials(ledger, count)
    page = _page(ledger)
    text, rows = page.text, [t for t, _ in page.tags].count("tr")
    expected = {
        0: "No trial has begun.",
        1: "It takes two completed trials that differ to say.",
        200: "from n = 120 completed trials.",
    }
    assert expected[count] in text and rows > count
    assert "The study has not ended." in text and "No model is exported yet." in text
    assert ("Fewer than 20 trials" in text) is False


def test_an_interrupted_study_says_so(tmp_path: Path) -> None:
    """What is there is shown, with a caution on top."""
    ledger = begun(tmp_path / "study")
    add_trials(ledger, 2)
    ledger.append("session", action="interrupted", pid=1, host="here")
    text = _page(ledger).text
    assert "The study was interrupted. It has come this far: searching." in text
    assert "Fewer than 20 trials completed" in text


def test_a_study_in_which_everything_diverged(tmp_path: Path) -> None:
    """There is no best, and the page says so rather than failing."""
    ledger = begun(tmp_path / "study")
    ledger.append(
        "proposed", key="trial-0000", kind="search", number=0, params={}, seed=0, label=""
    )
    ledger.append("started", key="trial-0000")
    ledger.append("finished", key="trial-0000", state="diverged", metrics={}, error="nan")
    assert "No trial has completed, so there is no model yet." in _page(ledger).text


def test_mixed_widths_are_said(tmp_path: Path) -> None:
    """On the card and in the first sentence; the layers are in the table as always."""
    ledger = begun(tmp_path / "study", "bits.overrides={layer1.*: {weights: 4}}")
    add_trials(ledger, 3)
    end(ledger)
    text = _page(ledger).text
    assert "W3 A3 mixed" in text and "layers with widths of their own. It comes" in text


WIDTHS = "search.bits.weights={choice: [2, 3, 4, 8]}"


def _add_widths(ledger: Ledger) -> None:
    """One trial a width; 4 bits are worse than 3."""
    for number, (bits, top1) in enumerate([(8, 98.0), (4, 96.0), (3, 97.0), (2, 20.0)]):
        key, params = f"trial-{number:04d}", {"bits.weights": bits, "lr": 0.01}
        fields = {"kind": "search", "number": number, "params": params, "seed": 0, "label": ""}
        ledger.append("proposed", key=key, **fields)
        ledger.append("started", key=key)
        metrics = {"top1": top1, "size": 1000.0 * bits, "bops": 2e6 * bits}
        ledger.append("finished", key=key, state="completed", metrics=metrics, epochs_run=3)


def _traces(page: Page) -> dict[str, dict] | None:
    found = [f for f in _figures(page) if any(d.get("name") == "the front" for d in f["data"])]
    for figure in found:
        go.Figure(figure)
    return {trace["name"]: trace for trace in found[0]["data"]} if found else None


def test_the_front_is_drawn(tmp_path: Path) -> None:
    """Every trial, the front joined, the knee marked; widths and costs under the pointer."""
    ledger = begun(tmp_path / "study", WIDTHS, "study.objectives=[top1, size]")
    _add_widths(ledger)
    page = _page(ledger)
    traces = _traces(page)
    assert traces["every trial"]["x"] == [8000, 4000, 3000, 2000]
    assert traces["the front"]["x"] == [2000, 3000, 8000]
    assert traces["the front"]["mode"] == "lines+markers"
    assert (traces["exported"]["x"], traces["exported"]["y"]) == ([3000], [97.0])
    assert traces["exported"]["text"] == [
        "trial-0002, W3A3<br>top1 97.00<br>size 3,000<br>bops 6.000e+06<br>"
        "bits.weights = 3<br>lr = 0.01"
    ]
    assert "Exported is the knee, trial 2" in page.text and "3-bit weights" in page.text
    assert "--trial 0" in page.text and "2.000e+06" not in page.text


def test_one_objective_has_a_front_where_sizes_differ(tmp_path: Path) -> None:
    """The best is marked, which is no knee; without widths the section is left out."""
    ledger = begun(tmp_path / "study", WIDTHS)
    _add_widths(ledger)
    page = _page(ledger)
    assert _traces(page)["exported"]["x"] == [8000] and "is the knee" not in page.text
    plain = begun(tmp_path / "plain")
    add_trials(plain, 3)
    assert _traces(_page(plain)) is None and "Pareto" not in _page(plain).text


def test_three_objectives_are_two_plots(tmp_path: Path) -> None:
    """Not joined: in each of them the third objective makes the line jump."""
    ledger = begun(tmp_path / "study", WIDTHS, "study.objectives=[top1, size, bops]")
    _add_widths(ledger)
    names = ("every trial", "the front", "exported")
    figures = [
        figure
        for figure in _figures(_page(ledger))
        if tuple(trace.get("name") for trace in figure["data"]) == names
    ]
    assert len(figures) == 2
    assert all(f["data"][1]["mode"] == "markers" for f in figures)


@pytest.mark.parametrize("space", ["digits_vit_w4a8", "resnet18_w3a3"])
def test_other_networks(space: str, tmp_path: Path) -> None:
    """A transformer's space, and one of ImageNet."""
    ledger = begun(tmp_path / "study", space=space, has_labels=space.startswith("digits"))
    add_trials(ledger, 5)
    end(ledger)
    assert f"W{ledger.state.spec.bits.weights}" in _page(ledger).text
