// Tables sort by a click on a heading: up, then down. Numbers sort as numbers, and what is not known comes last.
"use strict";
for (const table of document.querySelectorAll("table")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      const numeric = heading.classList.contains("number");
      const body = table.tBodies[0];
      const key = (row) => row.cells[column].dataset.key;
      const compare = (a, b) => (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
      const rows = [...body.rows].sort((a, b) => {
        const [one, other] = [key(a), key(b)];
        if (one === "" || other === "") return (one === "") - (other === "");
        return up ? compare(one, other) : compare(other, one);
      });
      body.append(...rows);
      for (const each of headings) each.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    });
  });
}
