// Sorting, filtering and hovering. Without this script everything can be read as well.
(function () {
  "use strict";
  document.documentElement.classList.add("on");

  function value(row, column) {
    var cell = row.cells[column];
    var text = cell.dataset.v || cell.textContent.trim();
    var number = Number(text.replace(/,/g, ""));
    return text !== "" && isFinite(number) ? number : text.toLowerCase();
  }

  function compare(a, b) {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function sort(table, head) {
    var column = head.cellIndex;
    var numbers = head.classList.contains("n");
    var now = head.getAttribute("aria-sort");
    var up = now ? now === "descending" : !numbers;
    var body = table.tBodies[0];
    var rows = Array.prototype.slice.call(body.rows);
    rows.sort(function (a, b) {
      var x = value(a, column), y = value(b, column);
      // Empty cells stay at the end.
      return x === "" || y === "" ? compare(x, y) : (up ? 1 : -1) * compare(x, y);
    });
    rows.forEach(function (row) { body.appendChild(row); });
    table.querySelectorAll("th").forEach(function (each) { each.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
  }

  document.querySelectorAll("table").forEach(function (table) {
    table.querySelectorAll("thead th").forEach(function (head) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.textContent = "";
      head.appendChild(button);
      button.addEventListener("click", function () { sort(table, head); });
    });
  });

  document.querySelectorAll(".filter input").forEach(function (input) {
    var table = input.parentNode.nextElementSibling.querySelector("table");
    input.addEventListener("input", function () {
      var words = input.value.toLowerCase().split(/\s+/);
      Array.prototype.forEach.call(table.tBodies[0].rows, function (row) {
        var text = row.textContent.toLowerCase();
        row.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; });
      });
    });
  });

  var tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.appendChild(tip);
  document.addEventListener("pointermove", function (event) {
    var mark = event.target.closest ? event.target.closest('[role="img"]') : null;
    // The script's own text is shown at once; the browser's would appear beside it.
    var title = mark && mark.querySelector("title");
    if (title) { mark.setAttribute("aria-label", title.textContent); title.remove(); }
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.getAttribute("aria-label");
    var left = Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8);
    var top = event.clientY + 16;
    if (top + tip.offsetHeight > window.innerHeight) top = event.clientY - tip.offsetHeight - 10;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = top + "px";
  });

  // A link to a row that the filter hides shows it again.
  window.addEventListener("hashchange", function () {
    var row = document.getElementById(location.hash.slice(1));
    if (row && row.hidden) row.hidden = false;
  });
})();
