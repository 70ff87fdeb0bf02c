"use strict";
const all = (where, what) => Array.from(where.querySelectorAll(what));
const make = (name, words, attributes) => {
  const node = document.createElement(name);
  if (words !== undefined) node.textContent = words;
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  return node;
};
const draw = (name, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

// What a point or a bar says, under the pointer.
const tip = document.body.appendChild(make("div", "", { id: "tip", hidden: "" }));
document.addEventListener("pointerover", (event) => {
  const at = event.target.closest("[data-t]");
  tip.hidden = !at;
  if (!at) return;
  const group = at.closest("[data-label]");
  tip.textContent = at.dataset.t + (group ? " \u00b7 " + group.dataset.label : "");
});
document.addEventListener("pointermove", (event) => {
  if (tip.hidden) return;
  const left = event.clientX + 14, box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(left, innerWidth - box.width - 6)) + "px";
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 6)) + "px";
});

// Tables sort by the column whose head is clicked; cells without a number stay at the end.
const key = (row, column) => {
  const cell = row.cells[column];
  if (!cell) return null;
  if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
  const words = cell.textContent.trim();
  return words === "\u2013" || words === "" ? null : words.toLowerCase();
};
const sorted = (table, column, down) => {
  const rows = Array.from(table.tBodies[0].rows), sign = down ? -1 : 1;
  const keys = new Map(rows.map((row) => [row, key(row, column)]));
  rows.sort((a, b) => {
    const x = keys.get(a), y = keys.get(b);
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
  });
  table.tBodies[0].append(...rows);
};
document.addEventListener("click", (event) => {
  const button = event.target.closest("table.sortable th button");
  if (button) {
    const head = button.closest("th"), table = head.closest("table"), before = head.getAttribute("aria-sort");
    const next = before ? (before === "ascending" ? "descending" : "ascending") : button.dataset.first;
    for (const other of all(table, "th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", next);
    sorted(table, head.cellIndex, next === "descending");
  }
  const label = event.target.closest("[data-shows]");
  if (label) {
    const on = label.getAttribute("aria-pressed") !== "true";
    label.setAttribute("aria-pressed", on);
    emphasise(label.closest("figure"));
  }
});

// A class of a map stands out while its name is pointed at, has the focus or is pressed.
const emphasise = (figure, over) => {
  const names = new Set(all(figure, "[aria-pressed=true]").map((button) => button.dataset.shows));
  if (over) names.add(over.dataset.shows);
  const map = figure.querySelector("svg.map");
  map.classList.toggle("chosen", names.size > 0);
  for (const group of all(map, "g")) group.classList.toggle("on", names.has(group.dataset.label));
};
for (const button of all(document, "[data-shows]")) {
  const figure = button.closest("figure");
  for (const begin of ["pointerenter", "focus"]) button.addEventListener(begin, () => emphasise(figure, button));
  for (const end of ["pointerleave", "blur"]) button.addEventListener(end, () => emphasise(figure));
}

// Rows by name; published rows on and off.
const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of all(document, "[data-name]")) {
    const name = row.dataset.name.toLowerCase();
    row.hidden = !words.every((word) => name.includes(word));
  }
});
for (const box of all(document, "[data-hides]")) {
  const table = document.getElementById(box.dataset.hides);
  const apply = () => table.classList.toggle("without-published", !box.checked);
  box.addEventListener("change", apply);
  apply();
}

// Scores per class.
const drawers = {};
drawers.classes = (content, number, box) => {
  const { c: classes, r: rows, v: values } = content[number];
  const table = make("table", undefined, { class: "sortable heat" });
  const head = table.createTHead().insertRow();
  const column = (words, first) => {
    const cell = make("th", undefined, { scope: "col", "data-h": words });
    cell.append(make("button", words, { type: "button", "data-first": first }));
    head.append(cell);
  };
  column("class", "ascending");
  rows.forEach((row) => column(row, "descending"));
  const mean = (n) => {
    const known = values.map((of) => of[n]).filter((value) => value !== null);
    return known.length ? known.reduce((a, b) => a + b, 0) / known.length : Infinity;
  };
  const body = table.createTBody();
  for (const n of classes.map((_, n) => n).sort((a, b) => mean(a) - mean(b))) {
    const row = body.insertRow();
    row.append(make("th", classes[n], { scope: "row" }));
    for (const of of values) {
      const share = of[n];
      row.append(share === null ? make("td", "\u2013")
        : make("td", (share / 10).toFixed(1), { "data-v": share, style: "--s:" + Math.round(share / 10) }));
    }
  }
  box.replaceChildren(table);
};

// A confusion matrix, and what is confused most in words.
drawers.confusion = (content, number, box) => {
  const { l, m, n: title } = content[number + 1], labels = content[0].labels[l], size = labels.length;
  const sums = new Array(size).fill(0), wrong = [];
  for (let k = 0; k < m.length; k += 3) sums[m[k]] += m[k + 2];
  const longest = Math.min(18, Math.max(...labels.map((name) => name.length)));
  const type = size > 100 ? 5 : size > 60 ? 7 : size > 30 ? 9 : 11, side = size > 12 ? Math.max(5.5, 620 / size) : 46;
  const edge = 14 + longest * type * 0.58, whole = side * size;
  const svg = draw("svg", { viewBox: `0 0 ${edge + whole + 2} ${edge + whole + 2}`, role: "img", "aria-label": "Confusion matrix: " + title });
  svg.style.maxWidth = Math.min(760, edge + whole) + "px";
  const words = (x, y, name, turned) => {
    const node = draw("text", { x, y, "text-anchor": turned ? "start" : "end", style: `font-size:${type}px` });
    if (turned) node.setAttribute("transform", `rotate(-90 ${x} ${y})`);
    node.textContent = name.length > 18 ? name.slice(0, 17) + "\u2026" : name;
    svg.append(node);
  };
  labels.forEach((name, k) => {
    const at = edge + (k + 0.5) * side + type * 0.35;
    if (side >= type * 0.8) { words(edge - 5, at, name, false); words(at, edge - 5, name, true); }
  });
  for (let k = 0; k < m.length; k += 3) {
    const [t, p, count] = [m[k], m[k + 1], m[k + 2]], share = count / sums[t];
    const cell = draw("rect", { x: edge + p * side, y: edge + t * side, width: side, height: side, class: "cell", "fill-opacity": (0.08 + 0.92 * share).toFixed(3),
      "data-t": `${labels[t]} \u2192 ${labels[p]}: ${count} (${(100 * share).toFixed(1)} %)` });
    svg.append(cell);
    if (t !== p) wrong.push([count, share, t, p]);
  }
  svg.append(draw("rect", { x: edge, y: edge, width: whole, height: whole, class: "frame" }));
  wrong.sort((a, b) => b[0] - a[0]);
  const most = make("ol");
  for (const [count, share, t, p] of wrong.slice(0, 12)) most.append(make("li", `${labels[t]} \u2192 ${labels[p]}: ${count} (${(100 * share).toFixed(0)} %)`));
  const beside = make("div"), both = make("div", undefined, { class: "side" });
  beside.append(make("h3", "Most often confused"), wrong.length ? most : make("p", "Nothing."));
  both.append(svg, beside);
  box.replaceChildren(make("h3", title), both);
};

for (const choice of all(document, "[data-draws]")) {
  const kind = choice.dataset.draws;
  const content = JSON.parse(document.getElementById(kind + "-data").textContent);
  const show = () => drawers[kind](content, Number(choice.value), document.getElementById(kind + "-drawn"));
  choice.addEventListener("change", show);
  show();
}
