"use strict";

const collator = new Intl.Collator(undefined, { numeric: true });

/* What a column is sorted by: numbers, or text; null where a value is missing. */
function keysOf(rows, column, isNumber) {
  return rows.map((row) => {
    const cell = row.cells[column];
    if (cell.hasAttribute("data-none")) return null;
    return isNumber ? Number(cell.dataset.v ?? cell.textContent) : cell.textContent;
  });
}

/* Rows in order of their keys; equal ones stay in the order of the file, missing ones come last either way. */
function sorted(rows, keys, isNumber, direction) {
  const places = rows.map((_, place) => place);
  places.sort((one, other) => {
    const [a, b] = [keys[one], keys[other]];
    if (a === null || b === null) return (a === null) - (b === null);
    if (isNumber) return direction * ((a > b) - (a < b));
    return direction * collator.compare(a, b);
  });
  return places.map((place) => rows[place]);
}

function element(tag, values, ...children) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
}

/* A table whose headings sort it and whose box filters it. Of many rows one page is laid out at a time: laying out
   thousands anew at every click would take seconds. */
class SortableTable {
  static #PAGE = 200;

  constructor(table) {
    this.body = table.tBodies[0];
    this.headings = [...table.tHead.rows[0].cells];
    this.all = [...this.body.rows];
    this.ordered = this.all;
    this.passing = null;
    this.window = table.closest(".scroll");
    this.count = document.createElement("output");
    this.places = document.createElement("span");
    const turn = (label, text, step) =>
      element("button", { type: "button", title: label, ariaLabel: label, onclick: () => this.show(step(this.page)) }, text);
    this.pager = element(
      "span",
      { className: "pager" },
      turn("first rows", "\u00ab", () => 0),
      turn("previous rows", "\u2039", (page) => page - 1),
      this.places,
      turn("next rows", "\u203a", (page) => page + 1),
      turn("last rows", "\u00bb", () => Infinity),
    );
    const bar = element("div", { className: "filter" }, ...this.#filter(), this.count, this.pager);
    if (this.all.length) this.window.before(bar);
    this.headings.forEach((heading, column) => this.#makeSorting(heading, column));
    this.#choose({});
  }

  /* Show rows in another order, or others of them (a set; null for all). */
  #choose({ ordered = this.ordered, passing = this.passing }) {
    Object.assign(this, { ordered, passing });
    this.shown = passing ? ordered.filter((row) => passing.has(row)) : ordered;
    const total = `${this.all.length} rows`;
    this.count.textContent = passing ? `${this.shown.length} of ${total}` : total;
    this.show(0);
  }

  show(page) {
    const size = SortableTable.#PAGE;
    this.page = Math.max(0, Math.min(page, Math.ceil(this.shown.length / size) - 1));
    const first = this.page * size;
    const last = Math.min(first + size, this.shown.length);
    this.body.replaceChildren(...this.shown.slice(first, last));
    this.places.textContent = `${first + 1} to ${last}`;
    this.pager.hidden = this.shown.length <= size;
    this.window.scrollTop = 0;
  }

  showAll() {
    this.body.replaceChildren(...this.shown);
  }

  #makeSorting(heading, column) {
    const isNumber = heading.classList.contains("n");
    heading.append(element("button", { type: "button", onclick: () => sort() }, ...heading.childNodes));
    let keys = null;
    const sort = () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      keys ??= keysOf(this.all, column, isNumber);
      this.#choose({ ordered: sorted(this.all, keys, isNumber, ascending ? 1 : -1) });
      for (const other of this.headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    };
  }

  /* A box; rows stay whose text holds every word in it. Numbers do not count: "12" is a name. */
  #filter() {
    const columns = [...this.headings.keys()].filter((column) => !this.headings[column].classList.contains("n"));
    if (!columns.length) return [];
    const label = `filter by ${columns.map((column) => this.headings[column].textContent.trim()).join(", ")}`;
    const box = element("input", { type: "search", placeholder: label, ariaLabel: label });
    let texts = null;
    box.addEventListener("input", () => {
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      texts ??= this.all.map((row) => columns.map((column) => row.cells[column].textContent.toLowerCase()).join("\n"));
      const passes = (_, place) => words.every((word) => texts[place].includes(word));
      this.#choose({ passing: words.length ? new Set(this.all.filter(passes)) : null });
    });
    return [box];
  }
}

function makeMovable(slider) {
  const range = slider.querySelector("input");
  const move = () => slider.style.setProperty("--split", `${range.value}%`);
  range.addEventListener("input", move);
  // With any value allowed, an arrow key has a step to be told.
  range.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    range.value = Number(range.value) + steps[event.key];
    move();
  });
  move(); // a browser may restore where it was
}

const tables = [...document.querySelectorAll("table.sortable")].map((table) => new SortableTable(table));
document.querySelectorAll(".slider").forEach(makeMovable);

// Paper gets the rows of all pages, and what is folded.
let unfolded = [];
addEventListener("beforeprint", () => {
  for (const table of tables) table.showAll();
  unfolded = [...document.querySelectorAll("details:not([open])")];
  for (const details of unfolded) details.open = true;
});
addEventListener("afterprint", () => {
  for (const table of tables) table.show(table.page);
  for (const details of unfolded) details.open = false;
});
