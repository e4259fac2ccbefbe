"""The page in Chromium, from a file: what it shows, sorts, filters and prints, and that it asks for nothing."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import threading

import pytest
from runs_by_hand import case, many, run_of, steps
from test_page import HOSTILE, hostile_run

from bench.report import page, sections

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium")
# A script at the end of the page presses buttons, and leaves what it sees in an element.
TRIED = """
<pre id="seen"></pre>
<script>
(function () {
  var table = document.querySelector("#results table");
  var heads = Array.prototype.map.call(table.querySelectorAll("th"), function (head) { return head.textContent; });
  function column(name) {
    return Array.prototype.filter.call(table.tBodies[0].rows, function (row) { return !row.hidden; })
      .map(function (row) { return row.cells[heads.indexOf(name)].textContent; }).join(";");
  }
  function press(name) { table.querySelectorAll("th button")[heads.indexOf(name)].click(); }
  var seen = [];
  press("items/s"); seen.push("descending=" + column("items/s"));
  press("items/s"); seen.push("ascending=" + column("items/s"));
  press("step"); seen.push("steps=" + column("step"));
  press("framework"); seen.push("names=" + column("framework"));
  var input = document.querySelector("#results input");
  input.value = "torch 1,5";
  input.dispatchEvent(new Event("input"));
  seen.push("filtered=" + column("framework"));
  var mark = document.querySelector("#results svg g.p path");
  mark.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: 50, clientY: 50}));
  var tip = document.getElementById("tip");
  seen.push("tip=" + (tip.hidden ? "" : tip.textContent));
  seen.push("wide=" + (document.documentElement.scrollWidth > window.innerWidth));
  document.getElementById("seen").textContent = seen.join("\\n");
})();
</script>
"""


def browse(folder, *options):
    """What Chromium prints of a page, and what it logs."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += [f"--user-data-dir={folder / 'browser'}", "--enable-logging=stderr", "--v=0", "--window-size=1200,900"]
    done = subprocess.run([*command, *options], capture_output=True, timeout=120)
    return done.stdout.decode(), done.stderr.decode()


def console(log):
    """The lines of the console of the page."""
    return re.findall(r"^.*CONSOLE.*$", log, re.MULTILINE)


def file_of(tmp_path, run, more=""):
    path = tmp_path / "report.html"
    path.write_text(page.render([run], sections.build([run])).replace("</body>", f"{more}</body>"))
    return path


def seen(dom):
    text = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL).group(1)
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """What the script saw, and the log."""
    folder = tmp_path_factory.mktemp("tried")
    entries = [
        case(8, "torch", 1500.0, samples=steps(60, 0.005)),
        case(8, "openvino", 900.0),
        case(1, "torch", 12_000.0),
        case(1, "openvino", 200_000.0),
    ]
    dom, log = browse(folder, "--dump-dom", file_of(folder, run_of(entries), TRIED).as_uri())
    return seen(dom), log


def test_numbers_are_sorted_as_numbers_and_times_with_their_units(tried):
    found, _ = tried

    assert found["descending"] == "200,000;12,000;1,500;900"
    assert found["ascending"] == "900;1,500;12,000;200,000"
    assert found["steps"].split(";")[0] == "8.89 ms"
    assert found["steps"].split(";")[-1] == "5 us"
    assert found["names"] == "openvino;openvino;torch;torch"


def test_the_filter_keeps_rows_with_all_words(tried):
    assert tried[0]["filtered"] == "torch"


def test_a_mark_says_what_it_is(tried):
    assert "%" in tried[0]["tip"]


def test_nothing_is_wider_than_the_window_and_the_console_is_empty(tried):
    found, log = tried

    assert found["wide"] == "false"
    assert console(log) == []


def test_a_page_is_whole_without_a_script(tmp_path):
    """The script adds the buttons; here the page's own policy forbids it."""
    path = file_of(tmp_path, many(16))
    path.write_text(path.read_text().replace("script-src 'unsafe-inline'", "script-src 'none'"))

    dom, _ = browse(tmp_path, "--dump-dom", path.as_uri())

    assert "<button" not in dom
    assert dom.count("<tr id=") == 16
    assert dom.count("<details") == path.read_text().count("<details")


def test_a_phone_shows_no_page_that_is_too_wide(tmp_path):
    frame = tmp_path / "frame.html"
    file_of(tmp_path, many(16), "<script>parent.postMessage(document.documentElement.scrollWidth, '*')</script>")
    frame.write_text(
        '<iframe src="report.html" width="390" height="800"></iframe><pre id="seen"></pre>'
        "<script>addEventListener('message', function (event) {"
        " document.getElementById('seen').textContent = 'width=' + event.data; });</script>"
    )

    dom, _ = browse(tmp_path, "--dump-dom", "--virtual-time-budget=3000", frame.as_uri())

    assert int(seen(dom)["width"]) <= 390


@pytest.mark.parametrize("text", HOSTILE[:6])
def test_hostile_texts_do_nothing(tmp_path, text):
    path = file_of(tmp_path, hostile_run(text))

    dom, log = browse(tmp_path, "--dump-dom", path.as_uri())

    assert "<title>broken" not in dom
    assert "<title>layerbench report" in dom
    assert console(log) == []


def test_the_page_is_printed_on_few_sheets(tmp_path):
    path = file_of(tmp_path, many(16))

    browse(tmp_path, f"--print-to-pdf={tmp_path / 'report.pdf'}", "--no-pdf-header-footer", path.as_uri())

    made = (tmp_path / "report.pdf").read_bytes()
    assert made.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", made)) <= 6


# A sheet of US letter within Chromium's margins of 1 cm, in pixels.
SHEET = (740, 980)
MEASURED = """
<pre id="seen"></pre>
<script>
document.getElementById("seen").textContent =
  "bottom=" + document.querySelector("#results figure").getBoundingClientRect().bottom;
</script>
"""


def test_the_first_printed_sheet_has_the_rates_of_all_cases_below_the_machine(tmp_path):
    """Twenty rows are the most that a picture has. One that does not fit leaves half of the sheet empty."""
    path = file_of(tmp_path, many(80), MEASURED)
    path.write_text(path.read_text().replace("@media print", "@media all"))

    dom, _ = browse(tmp_path, "--dump-dom", f"--window-size={SHEET[0]},{SHEET[1]}", path.as_uri())

    assert float(seen(dom)["bottom"]) < SHEET[1]


def test_the_page_asks_a_server_for_nothing_but_itself(tmp_path):
    file_of(tmp_path, many(16))
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, form, *values):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        browse(tmp_path, "--dump-dom", f"http://127.0.0.1:{server.server_address[1]}/report.html")
    finally:
        server.shutdown()
        server.server_close()

    # Browsers ask for the icon of a site by themselves; never for that of a file.
    assert set(asked) <= {"/report.html", "/favicon.ico"}
