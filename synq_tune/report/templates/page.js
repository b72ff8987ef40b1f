"use strict";

/* Plots near the screen are drawn first, the others while the reader reads; those in a closed fold
   have no size before it is opened. */
function draw(canvas) {
  const source = canvas.querySelector("script");
  if (!source || !canvas.clientWidth) return;
  const figure = JSON.parse(source.textContent);
  source.remove();
  near.unobserve(canvas);
  Plotly.newPlot(canvas, figure.data, figure.layout, {
    responsive: true, displayModeBar: false, showLink: false,
  });
}

const canvases = [...document.querySelectorAll(".canvas")];
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
}, { rootMargin: "400px" });
canvases.forEach((canvas) => near.observe(canvas));
canvases.forEach((canvas, number) => setTimeout(draw, 200 + 40 * number, canvas));
addEventListener("beforeprint", () => canvases.forEach(draw));

/* Empty cells go last, whichever way a table is sorted. */
function compare(a, b, isNumber, sign) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return sign * (isNumber ? parseFloat(a.replace(/,/g, "")) - parseFloat(b.replace(/,/g, ""))
                          : a.localeCompare(b));
}

function sortBy(head) {
  const table = head.closest("table"), body = table.tBodies[0];
  const isRising = head.getAttribute("aria-sort") !== "ascending";
  const column = head.cellIndex, isNumber = head.classList.contains("number");
  const rows = [...body.rows].sort((a, b) => compare(
    a.cells[column].textContent, b.cells[column].textContent, isNumber, isRising ? 1 : -1));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", isRising ? "ascending" : "descending");
  body.append(...rows);
}

document.querySelectorAll(".sortable th button").forEach((button) =>
  button.addEventListener("click", () => sortBy(button.closest("th"))));

/* Where a browser allows no clipboard, the text is selected, ready to be copied. */
function copy(button) {
  const text = button.closest(".code").querySelector("pre");
  const select = () => getSelection().selectAllChildren(text);
  const told = () => { button.textContent = "Copied"; };
  if (!navigator.clipboard) return select();
  navigator.clipboard.writeText(text.textContent).then(told, select);
}

document.querySelectorAll(".copy").forEach((button) =>
  button.addEventListener("click", () => copy(button)));
