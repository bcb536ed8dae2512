// A click on a heading sorts its table; numbers by data-v, anything that is no number goes last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const key = row => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
      const rows = [...body.rows].map(row => ({row, text: key(row), value: parseFloat(key(row))}));
      const numeric = rows.some(item => head.classList.contains("num") || item.row.cells[column].dataset.v !== undefined);
      rows.sort((x, y) => !numeric ? sign * x.text.localeCompare(y.text)
        : isNaN(x.value) || isNaN(y.value) ? isNaN(x.value) - isNaN(y.value) : sign * (x.value - y.value));
      body.append(...rows.map(item => item.row));
    });
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(part => { part.open = true; }));
