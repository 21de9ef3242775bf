"use strict";
// The page is whole without this. It adds sorting, searching, and what is at a point of a picture.
(() => {
  const text = (cell) => cell.textContent.trim();
  const value = (cell) => (cell.dataset.v !== undefined ? Number(cell.dataset.v) : text(cell));
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return a.localeCompare(b);
  };
  for (const table of document.querySelectorAll("table.sort")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const numbers = head.classList.contains("n");
        const known = head.getAttribute("aria-sort");
        const up = known ? known === "descending" : !numbers;
        heads.forEach((it) => it.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = [...body.rows].sort((a, b) => {
          const order = compare(value(a.cells[column]), value(b.cells[column]));
          return up ? order : -order;
        });
        body.append(...rows);
      });
    });
  }
  for (const table of document.querySelectorAll("table.search")) {
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = document.body.dataset.search;
    field.setAttribute("aria-label", document.body.dataset.searchTable);
    table.parentElement.before(field);
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase();
      for (const row of table.tBodies[0].rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
      }
    });
  }
  const hex = (number, digits) => "0x" + number.toString(16).padStart(digits, "0");
  const units = (bytes) => {
    let at = 0;
    const names = ["B", "KiB", "MiB", "GiB", "TiB"];
    while (1024 <= bytes && at + 1 < names.length) { bytes /= 1024; at += 1; }
    return (at ? bytes.toFixed(1) : bytes) + " " + names[at];
  };
  for (const space of document.querySelectorAll(".space")) {
    const data = JSON.parse(space.querySelector(".runs").textContent);
    const told = space.querySelector(".told");
    for (const picture of space.querySelectorAll(".picture")) {
      const stretch = data.stretches[Number(picture.dataset.stretch)];
      const base = BigInt(stretch.start);
      const digits = stretch.start.length - 2;
      const cursor = picture.querySelector(".cursor");
      let current = 0;
      const show = (idx) => {
        if (idx < 0 || stretch.runs.length <= idx) return;
        current = idx;
        const [cell, cells, kind, label] = stretch.runs[idx];
        cursor.setAttribute("x", cell % data.columns);
        cursor.setAttribute("y", Math.floor(cell / data.columns) * data.row);
        cursor.setAttribute("width", cells);
        const start = base + BigInt(cell) * BigInt(data.cell);
        const end = start + BigInt(cells) * BigInt(data.cell);
        told.textContent = hex(start, digits) + " – " + hex(end, digits) + "  " +
          units(cells * data.cell) + "  " + data.legend[kind].label + "  " + data.labels[label];
      };
      const at = (cell) => {
        let low = 0;
        let high = stretch.runs.length - 1;
        while (low < high) {
          const middle = (low + high + 1) >> 1;
          if (stretch.runs[middle][0] <= cell) low = middle; else high = middle - 1;
        }
        return low;
      };
      picture.addEventListener("mousemove", (event) => {
        const box = picture.getBoundingClientRect();
        const column = Math.floor((event.clientX - box.left) / box.width * data.columns);
        const row = Math.floor((event.clientY - box.top) / box.height * stretch.rows);
        show(at(row * data.columns + column));
      });
      picture.addEventListener("focus", () => show(current));
      picture.addEventListener("keydown", (event) => {
        const [cell] = stretch.runs[current];
        const next = {
          ArrowRight: () => current + 1, ArrowLeft: () => current - 1,
          ArrowDown: () => at(cell + data.columns), ArrowUp: () => at(Math.max(0, cell - data.columns)),
          Home: () => 0, End: () => stretch.runs.length - 1,
        }[event.key];
        if (!next) return;
        event.preventDefault();
        show(next());
      });
    }
  }
  // A link to a finding opens it; paper shows everything.
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", open);
  open();
  addEventListener("beforeprint", () => {
    for (const it of document.querySelectorAll("details")) it.open = true;
  });
})();
