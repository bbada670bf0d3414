// Sorts and filters the tables, draws the charts. Without it the page is whole, but for the charts.
(() => {
  "use strict";

  const key = cell => cell.dataset.sort === undefined ? null : Number(cell.dataset.sort);

  // Cells without a number (a dash, say) stand last, whichever way a column of numbers is sorted.
  function compare(a, b, sign) {
    const [x, y] = [key(a), key(b)];
    if (x !== null && y !== null) return sign * (x - y);
    if (x !== null || y !== null) return x === null ? 1 : -1;
    return sign * a.textContent.trim().localeCompare(b.textContent.trim(), "en", { numeric: true });
  }

  function sortable(table) {
    const body = table.tBodies[0], first = [...body.rows], heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        // A first click sorts upwards, a second one downwards, a third one restores the order of the study.
        const next = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
        heads.forEach(other => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        const rows = next === "none" ? first
          : [...first].sort((a, b) => compare(a.cells[column], b.cells[column], sign));
        body.append(...rows);
      });
    });
  }

  function filterable(table) {
    const rows = [...table.tBodies[0].rows], box = table.parentElement;
    const tools = document.createElement("div"), label = document.createElement("label");
    const input = document.createElement("input"), count = document.createElement("output");
    tools.className = "tools";
    input.type = "search";
    input.setAttribute("aria-controls", table.id);
    count.setAttribute("aria-live", "polite");
    label.append("Filter ", input);
    tools.append(label, count);
    box.before(tools);
    const texts = rows.map(row => row.textContent.replaceAll("−", "-").toLowerCase());
    input.addEventListener("input", () => {
      const words = input.value.replaceAll("−", "-").toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      rows.forEach((row, i) => {
        const kept = words.every(word => texts[i].includes(word));
        row.classList.toggle("left-out", !kept);
        left += kept;
      });
      count.textContent = words.length ? `${left} of ${rows.length} rows` : "";
    });
  }

  for (const table of document.querySelectorAll("table.data")) {
    sortable(table);
    if (table.tBodies[0].rows.length > 2) filterable(table);
  }

  // Single runs of learning curves: shown in all charts at once.
  const curves = [], singles = document.getElementById("single-runs");
  const single = view => view.signal("runs", singles.checked).runAsync();
  if (singles) singles.addEventListener("change", () => curves.forEach(single));

  // As many columns as there is room for. As an expression of the chart's width they would come too late for its height.
  function fitted(config, box, entry) {
    const columns = Math.max(1, Math.floor((box.clientWidth - 70) / entry));
    return { ...config, legend: { ...config.legend, columns } };
  }

  async function draw(box, config) {
    const spec = JSON.parse(box.querySelector("script").textContent);
    if (spec.usermeta) config = fitted(config, box, spec.usermeta.entry);
    const actions = { export: true, source: false, compiled: false, editor: false };
    try {
      const drawn = await vegaEmbed(box, spec, { mode: "vega-lite", renderer: "svg", config, actions, downloadFileName: box.id });
      if (box.closest("#curves")) {
        curves.push(drawn.view);
        if (singles.checked) single(drawn.view);
      }
    } catch (error) {
      box.textContent = `This chart cannot be drawn: ${error}`;
    }
  }

  // One after the other, with a pause for the reader's clicks; those of closed parts too, for print.
  async function drawAll() {
    const config = JSON.parse(document.getElementById("chart-config").textContent);
    for (const box of document.querySelectorAll(".chart")) {
      await draw(box, config);
      await new Promise(resolve => setTimeout(resolve));
    }
    document.documentElement.dataset.charts = "drawn";
  }
  drawAll();

  // Paper has no way to open a part: all are open while it is printed.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")].filter(part => !part.closest(".chart"));
    closed.forEach(part => { part.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach(part => { part.open = false; }));
})();
