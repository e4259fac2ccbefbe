"""The page: whole, valid, small, and harmless whatever the file says. Markdown as well."""

from __future__ import annotations

import re

import pytest
from runs_by_hand import case, many, pair_verdict, run_of, steps
from stored_files import content, record, write

from bench.report import __main__, markdown, page, reading, sections

HOSTILE = (
    "<script>document.title='broken'</script>",
    '"><img src=x onerror="document.title=\'broken\'">',
    "'; alert(1); '",
    "]]><!-- <svg onload=alert(1)>",
    "\u202eabc\u2066def \u05d0\u05d1\u05d2",
    "{{ 7 * 7 }} {% raw %}",
    "x" * 10_000,
    "| a | b |\n---\n```\n[link](https://example.org) @everyone",
)


def rendered(*runs):
    return page.render(runs, sections.build(runs))


def hostile_run(text):
    """A run that says this text wherever a file has a text."""
    made = [case(backend=name, samples=steps(20, 0.001)) for name in ("torch", "jax")]
    for entry in made:
        for name, value in entry["extra_info"].items():
            if (isinstance(value, str) or value is None) and name not in ("backend", "validity", "source"):
                entry["extra_info"][name] = text
        entry["extra_info"]["machine"] = {text: text, "cpu": text}
        verdict = pair_verdict("slower", -0.1, [-0.1] * 3)
        verdict["metrics"][text] = {**verdict["metrics"]["rate"], "unit": text}
        entry["extra_info"]["against"] = {**verdict, "spec": text, "text": text}
    other = case(backend=text)
    other["extra_info"]["id"] = text
    extra = {"command": text, "missing": [{"id": text, "outcome": text, "reason": text}], "verdicts": [{text: text}]}
    invalid = [record(workload=text, validity="INVALID", invalid_reasons=[text])]
    return reading.from_json(
        text,
        {
            **content([], machine_info={"node": text, "layerbench": {"model": text}}, commit_info={"id": text}),
            "benchmarks": [*made, other],
            "datetime": text,
            "layerbench": extra,
            "layerbench_invalid": invalid,
        },
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_escaped_and_cut(text):
    html5lib = pytest.importorskip("html5lib")

    made = rendered(hostile_run(text))

    tree = html5lib.parse(made, namespaceHTMLElements=False)
    assert len(tree.findall(".//script")) == 1
    assert tree.findall(".//img") == []
    assert not any(name.lower().startswith("on") for element in tree.iter() for name in element.attrib)
    assert "x" * 2001 not in made
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", made)
    assert len(made) < 200_000


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_no_markup_in_markdown(text):
    runs = [hostile_run(text)]

    made = markdown.render(runs, sections.build(runs))

    # In blocks of code everything is text.
    outside = re.sub(r"```sh\n.*?\n```", "", made, flags=re.DOTALL)
    assert not re.search(r"<(?!/?(details|summary)>)", outside)
    for mark in ("https://", "@everyone", "](", "```"):
        assert mark not in outside
    assert all(line.count("```") == 0 or line in ("```sh", "```") for line in made.splitlines())
    assert len(made) < 65_536


def test_a_page_of_128_cases_is_below_300_kilobytes():
    made = rendered(many(128))

    assert len(made.encode()) < 300_000


def test_a_page_loads_nothing():
    made = rendered(many(16))

    assert re.findall(r"https?:|//[a-z]|@import|url\(", re.sub(r"(?m)^\s*//.*$", "", made)) == []
    assert set(re.findall(r'\b(?:src|href)="([^"]?)', made)) == {"#"}
    assert "default-src 'none'" in made


def test_a_page_is_valid_html():
    html5lib = pytest.importorskip("html5lib")
    parser = html5lib.HTMLParser(strict=False)

    parser.parse(rendered(many(16)))

    # Closing tags of cells and rows may be left out.
    assert [name for _, name, _ in parser.errors] == []


def test_every_link_leads_to_a_place_on_the_page():
    made = rendered(many(16))
    ids = re.findall(r'\bid="([^"]+)"', made)

    assert set(re.findall(r'href="#([^"]+)"', made)) <= set(ids)
    assert len(ids) == len(set(ids))


def test_every_point_has_a_text_and_every_table_is_as_wide_as_its_heads():
    runs = [many(16)]
    made = sections.build(runs)
    html = page.render(runs, made)

    for group in re.findall(r'<g class="(?:p |dot)[^"]*">(.*?)</g>', html):
        assert group.count("<title>") == group.count("<path") + group.count("<circle")
    for table in page.tables(made):
        assert {len(row) for row in table.rows} <= {len(table.columns)}


def test_every_picture_has_a_table():
    for section in sections.build([many(16)]).values():
        for block, following in zip(section.blocks, [*section.blocks[1:], None]):
            if hasattr(block, "svgs"):
                assert block.table is not None or hasattr(following, "columns")


def test_every_row_of_the_results_has_its_command():
    table = page.tables({"results": sections.build([many(16)])["results"]})[0]

    assert all(row[-1].code and row[-1].text.startswith("pytest bench -k ") for row in table.rows)


def test_markdown_of_many_cases_fits_a_comment_and_has_the_rates():
    runs = [many(512, samples=3)]

    made = markdown.render(runs, sections.build(runs))

    assert len(made) < 65_536
    assert "more rows are on the page" in made


def test_markdown_has_the_verdicts():
    runs = [run_of([case(against=pair_verdict("slower", -0.1, [-0.1] * 9))])]

    made = markdown.render(runs, sections.build(runs))

    assert "| lstm h8&#95;t3, torch | **slower** | -9.5 % |" in made


def test_a_report_of_files_is_written_by_the_module(tmp_path, capsys):
    one = write(tmp_path / "a.json", [record()])
    two = write(tmp_path / "b.json", [record(backend="jax")])
    targets = [tmp_path / "r.html", tmp_path / "r.md"]

    code = __main__.main([str(one), str(two), "-o", str(targets[0]), "-o", str(targets[1])])

    assert code == 0
    assert all("jax" in target.read_text() and "torch" in target.read_text() for target in targets)
    assert [line.split(" (")[0] for line in capsys.readouterr().out.splitlines()] == [str(each) for each in targets]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.json", "-o", "r.html"], "missing.json"),
        (["a.json", "-o", "r.pdf"], "'r.pdf': a report is a file that ends with .html, .md or .csv"),
        (["a.json", "-o", "nowhere/r.html"], "nowhere"),
    ],
)
def test_a_wrong_argument_is_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.json", [record()])

    code = __main__.main(arguments)

    error = capsys.readouterr().err
    assert code == 4
    assert said in error
    assert error.count("\n") == 1
