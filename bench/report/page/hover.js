// Reads values off under the pointer. Without it the page lacks nothing: the
// tables below the charts have the same figures.
"use strict";
for (const figure of document.querySelectorAll("figure.chart")) {
  const series = JSON.parse(figure.dataset.series);
  const area = figure.querySelector(".area");
  const cross = area.querySelector(".cross");
  const tip = area.querySelector(".tip");
  const nearest = (xs, at) => {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (xs[middle] < at) low = middle; else high = middle;
    }
    return at - xs[low] < xs[high] - at ? low : high;
  };
  const show = (event) => {
    const box = area.getBoundingClientRect();
    const at = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const shown = series.filter((s) => s.x && s.x.length);
    if (!shown.length) return;
    tip.replaceChildren(...shown.map((s) => {
      const row = document.createElement("div");
      row.className = "c" + s.c;
      const words = document.createElement("b");
      words.textContent = (s.n ? s.n + ", " : "") + s.w[nearest(s.x, at)];
      row.append(words);
      return row;
    }));
    const first = shown[0];
    const x = first.x[nearest(first.x, at)];
    cross.style.left = 100 * x + "%";
    tip.style.left = x < 0.5 ? `calc(${100 * x}% + .5rem)` : "auto";
    tip.style.right = x < 0.5 ? "auto" : `calc(${100 - 100 * x}% + .5rem)`;
    cross.hidden = tip.hidden = false;
  };
  const hide = () => { cross.hidden = tip.hidden = true; };
  area.addEventListener("pointermove", show);
  area.addEventListener("pointerdown", show);
  area.addEventListener("pointerleave", hide);
}
