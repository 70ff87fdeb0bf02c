"""The page: whole, closed, escaped, with the figures of the text table, and nothing to load."""

import re
from html.parser import HTMLParser

import pytest
from made_up import CONFUSION, EFFICIENCY, folder_of_everything, made_up, put, put_map

from evar.html import page as pages
from evar.html.confusion import read_confusion
from evar.html.markup import VOID
from evar.report import tables_of
from evar.results import read_results
from evar.tables import render


class Reader(HTMLParser):
    """Reads a page: are elements closed in order, which are there, with which attributes and words."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.wrong, self.words = [], [], [], {}
        self.feed(page)
        self.close()

    def handle_starttag(self, name, attributes):
        self.seen.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.seen.append((name, dict(attributes)))

    def handle_endtag(self, name):
        if not self.open or self.open.pop() != name:
            self.wrong.append(name)

    def handle_data(self, words):
        self.words.setdefault(self.open[-1] if self.open else "", []).append(words)


def page_of(folder, **others):
    results, problems = read_results(folder)
    return pages.page(results, tables_of(results, paper="all"), folder, problems, **others)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    folder_of_everything(folder)
    return folder


def test_every_element_is_closed_and_every_id_is_one(everything):
    read = Reader(page_of(everything))
    assert not read.wrong and not read.open
    ids = [attributes["id"] for _, attributes in read.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"][1:] for name, attributes in read.seen if name == "a"]
    assert links and set(links) <= set(ids)


def test_all_parts_are_there_and_only_those_that_have_something_to_show(everything, tmp_path):
    def parts(folder):
        return [a["id"] for name, a in Reader(page_of(folder)).seen if name == "section"]

    assert parts(everything) == [
        "scores", "ranks", "tasks", "robustness", "efficiency", "classes", "confusion", "maps", "learning", "runs"
    ]  # fmt: skip
    put(tmp_path, made_up("m", "fsdd", per_class={}, details=[]))
    assert parts(tmp_path) == ["scores", "tasks", "runs"]


def test_nothing_is_loaded_from_anywhere(everything):
    page = page_of(everything)
    read = Reader(page)
    assert not {name for name, _ in read.seen} & {"link", "img", "iframe", "object", "embed", "base", "audio", "video"}
    for name, attributes in read.seen:
        assert "src" not in attributes, name
        assert attributes.get("href", "#").startswith("#")
    style = pages.part("style.css")
    assert "url(" not in style and "@import" not in style
    assert "fetch" not in pages.part("script.js") and "innerHTML" not in pages.part("script.js")
    (policy,) = [a["content"] for n, a in read.seen if n == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ") and "sha256-" in policy


def test_names_from_outside_are_text(tmp_path):
    evil = '</script><img src=x onerror="alert(1)">'
    hostile = made_up(
        f"<script>alert(1)</script>{evil}",
        "esc50",
        per_class={evil: 0.5, "b": 0.2},
        notes={"untrained": evil},
        flags=["untrained"],
        settings={evil: evil, "model_options": {"a": evil}},
        weights={"given": evil, "sha256": evil, "licence": evil},
        versions={evil: evil},
        ci_method=evil,
        created=evil,
        efficiency=EFFICIENCY | {"device": evil},
        robustness={"clean": 0.5, "corruptions": {evil: {"score": 0.4, "drop": 0.1}}, "mean_drop": 0.1},
    )
    put(tmp_path, hostile, ((1, 2), (3, 4)))
    put_map(tmp_path, (evil, "b"), files=evil + "{}")
    (tmp_path / f"{evil.replace('/', '')}.json").write_text("{")
    page = page_of(tmp_path)
    read = Reader(page)
    assert not read.wrong and not read.open
    assert "img" not in {name for name, _ in read.seen}
    assert [a.get("type") for name, a in read.seen if name == "script"] == [
        "application/json",
        "application/json",
        None,
    ]
    assert not [key for _, attributes in read.seen for key in attributes if key.startswith("on")]
    assert "<img" not in page and "<script>alert" not in page


def test_the_figures_are_those_of_the_text_table(everything):
    results, _ = read_results(everything)
    tables = tables_of(results, paper="all")
    found = re.findall(r'<table id="table\d+".*?</table>', page_of(everything), flags=re.DOTALL)
    assert len(found) == len(tables) == 3
    for table, drawn in zip(tables, found, strict=True):
        lines = render(table, "text").splitlines()[4 : 4 + len(table.rows)]
        rows = re.findall(r'<tr class="(?:own|published)".*?</tr>', drawn)
        for row, line, (_, cells, _) in zip(rows, lines, table.rows, strict=True):
            shown = [
                re.sub(r"<span class=\"unseen\">.*?</span>|<[^>]*>", "", td) for td in re.findall(r"<td.*?</td>", row)
            ]
            assert [words.replace("–", "-") for words in shown[:-1]] == [c.text() if c else "-" for c in cells]
            assert all(words.replace("–", "-") in line for words in shown[:-1])


def test_our_rows_the_best_the_second_and_what_is_not_zero_shot_are_marked(everything):
    page = page_of(everything)
    assert re.search(r'<tr class="own" data-name="alpha"><th scope="row"><span>alpha</span>', page)
    assert re.search(r'<tr class="published" data-name="\[CED\]"><th scope="row"><span>CED</span></th>', page)
    assert '<strong>97.9</strong><span class="unseen"> best</span>' in page
    assert '<u>97.7</u><span class="unseen"> second best</span>' in page
    assert re.search(r'<span class="seen">40.0</span><sup title="not zero-shot[^"]*">†</sup>', page)


def test_costs_and_corruptions_are_shown(everything):
    page = page_of(everything)
    assert "alpha: 65.0 %, 1 M parameters" in page, "80 on esc50 and 50 on us8k"
    assert "GFLOPs per s of audio" in page and "cpu, batch 64, 5 s" in page
    assert "noise:10dB" in page and "<small>−20.0</small>" in page


def test_curves_have_scores_from_the_result_and_losses_from_the_tables(everything):
    page = page_of(everything)
    assert "epoch 3: 50" in page and "loss by epoch" in page
    assert "151 (150 to 152)" in page, "the probes' epochs"


def test_every_run_has_its_settings_and_its_environment(everything):
    page = page_of(everything)
    assert page.count("<details data-name=") == 6
    assert "<i>max_epochs</i>=200" in page and "environment A" in page
    assert '<td class="text">2.5</td>' in page, "torch's version"


def test_files_that_are_no_results_are_named(everything, tmp_path):
    put(tmp_path, made_up("m", "fsdd"))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "bad.map.json").write_text('{"points": [[1, 2]], "files": [], "labels": []}')
    page = page_of(tmp_path)
    assert "broken.json is not JSON" in page and "bad.map.json is not a map" in page


def test_maps_follow_the_choice_of_tasks_and_models(everything):
    assert 'id="maps"' in page_of(everything, tasks=("esc50",), models=("m",))
    assert 'id="maps"' not in page_of(everything, tasks=("us8k",))
    assert 'id="maps"' not in page_of(everything, models=("alpha",))


def test_a_map_has_a_mark_per_clip_that_says_its_file(everything):
    page = page_of(everything)
    (drawn,) = re.findall(r'<svg [^>]*class="map">.*?</svg>', page)
    assert re.findall(r'data-t="([^"]*)"', drawn) == [f"clip {n}.wav" for n in range(6)]
    assert re.findall(r'data-label="([^"]*)"', drawn) == ["cat", "dog", "rain"]


def test_a_large_map_is_thinned_and_says_so(tmp_path):
    put(tmp_path, made_up("m", "esc50"))
    put_map(tmp_path, tuple(f"class {n}" for n in range(1500)))
    page = page_of(tmp_path)
    (drawn,) = re.findall(r'<svg [^>]*class="map">.*?</svg>', page)
    assert drawn.count("data-t=") == 1500 and "3000 clips, one in 2 drawn" in page


def test_a_confusion_matrix_is_read_sparse(tmp_path):
    result = put(tmp_path, made_up("m", "esc50"), CONFUSION)
    labels, counts = read_confusion(tmp_path, result)
    assert labels == ("cat", "dog", "rain")
    assert counts == [(0, 0, 30), (0, 1, 8), (0, 2, 2), (1, 0, 1), (1, 1, 39), (2, 2, 40)]


@pytest.mark.parametrize("content", ["", "a,b\nb,x\n", "a,b,c\nb,1,2\n", "a,b\nb,1,2\n", "\x00"])
def test_a_broken_matrix_is_left_out(tmp_path, content):
    (tmp_path / "x.csv").write_text(content)
    assert read_confusion(tmp_path, made_up("m", "esc50", files={"confusion": "x.csv"})) is None


def test_no_file_outside_the_folder_is_read(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    (tmp_path / "secret.csv").write_text("t,a\na,1\n")
    assert read_confusion(folder, made_up("m", "esc50", files={"confusion": "../secret.csv"})) is None


def test_a_matrix_too_large_to_draw_is_named(tmp_path):
    names = [f"c{n}" for n in range(201)]
    lines = [",".join(["t", *names]), *(",".join([name, *["1"] * 201]) for name in names)]
    (tmp_path / "big.csv").write_text("\n".join(lines))
    put(tmp_path, made_up("m", "esc50", files={"confusion": "big.csv"}))
    page = page_of(tmp_path)
    assert "Not drawn" in page and "big.csv" in page and "confusion-data" not in page


def test_one_result_of_one_task_is_enough(tmp_path):
    put(tmp_path, made_up("m", "fsdd", ci95=None, ci_low=None, ci_high=None, ci_method=None, scores=[0.5]))
    read = Reader(page_of(tmp_path))
    assert not read.wrong and not read.open
