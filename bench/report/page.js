// Sorting, filtering and hovering. Without this script everything can be read as well.
(function () {
  "use strict";
  document.documentElement.classList.add("on");

  var UNITS = {
    ns: 1e-9, us: 1e-6, ms: 1e-3, s: 1, KiB: 1024, MiB: 1048576, GiB: 1073741824, k: 1e3, M: 1e6, G: 1e9, T: 1e12
  };

  // A text that starts with a number is sorted by it and by its unit.
  function value(row, column) {
    var text = row.cells[column].textContent.trim();
    var found = /^([+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?) ?([A-Za-z]*)/.exec(text);
    // A date has no unit: as a text it has its order.
    if (/^\d{4}-\d\d-/.test(text)) return text;
    return found ? Number(found[1].replace(/,/g, "")) * (UNITS[found[2]] || 1) : text.toLowerCase();
  }

  function compare(a, b) {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function sort(table, head) {
    var column = head.cellIndex;
    var numbers = table.classList.contains("n" + (column + 1));
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
        // Not the commands: they are folded away.
        var cells = Array.prototype.filter.call(row.cells, function (cell) { return !cell.querySelector("details"); });
        var text = cells.map(function (cell) { return cell.textContent; }).join(" ").toLowerCase();
        row.hidden = !words.every(function (word) { return text.indexOf(word) >= 0; });
      });
    });
  });

  var tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.appendChild(tip);
  document.addEventListener("pointermove", function (event) {
    var mark = event.target;
    var title = mark.firstElementChild;
    // The script's own text is shown at once; the browser's would appear beside it.
    if (title && title.tagName === "title" && mark.ownerSVGElement) {
      mark.setAttribute("aria-label", title.textContent);
      mark.setAttribute("role", "img");
      title.remove();
    }
    tip.hidden = !(mark.ownerSVGElement && mark.hasAttribute("aria-label"));
    if (tip.hidden) return;
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
