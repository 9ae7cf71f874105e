// Panel 6: the keys and values that are kept, and what keeping them saves.

import { byId, element, headings, whole } from "./show.js";

const MEANT = 20; // characters over which the costs are meant

export function cachePanel(view) {
  const { n_layers: layers, d_model: width, max_len: context } = view.config;
  byId("cache").addEventListener("change", update);
  byId("write-ten").addEventListener("click", () => view.write(10));
  new ResizeObserver(update).observe(byId("cells"));

  // The first `filled` positions hold a key and a value, the last `added` of them new ones.
  function cells(filled, added) {
    const canvas = byId("cells"), pen = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const [empty, fresh, kept] = ["--empty", "--accent", "--kept"].map((name) => style.getPropertyValue(name));
    const unit = Math.round(devicePixelRatio);
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    canvas.height = 20 * unit * layers;
    const w = canvas.width / context;
    for (let t = 0; t < context; t++) {
      pen.fillStyle = t >= filled ? empty : t >= filled - added ? fresh : kept;
      const [left, right] = [Math.round(t * w), Math.round((t + 1) * w) - (w > 3 ? unit : 0)];
      for (let half = 0; half < 2 * layers; half++) { // of each layer the keys above, the values below
        const top = 20 * Math.floor(half / 2) + 9 * (half % 2);
        pen.fillRect(left, top * unit, Math.max(1, right - left), 8 * unit);
      }
    }
  }

  function update() {
    const keeps = byId("cache").checked;
    const T = view.reading ? view.tokens.length - view.reading.start : 0;
    const added = view.reading ? T - view.reading.cached : 0;
    cells(keeps ? T : 0, added);
    const fresh = added === 0 ? "none" : added === T ? "all" : added === 1 ? "the last" : `the last ${added}`;
    byId("cache-note").textContent = keeps
      ? `${T} of ${context} positions are kept, ${fresh} of them new. In each of ${layers} layers that is a key (above) `
        + `and a value (below): ${whole(2 * layers * width * T)} numbers in all.`
      : "Nothing is kept: for each character every layer computes all keys and values again.";
    const rows = [
      view.costs.filter(({ kept, moved }) => kept && !moved),
      view.costs.filter(({ kept }) => !kept),
      view.costs.filter(({ moved }) => moved),
    ].map((row) => row.slice(-MEANT));
    const mean = (row, name) => row.reduce((sum, cost) => sum + cost[name], 0) / row.length;
    byId("costs").replaceChildren(
      headings("", "characters", "multiplications each", "ms each"),
      element("tbody", {}, ...rows.slice(0, rows[2].length ? 3 : 2).map((row, i) => element("tr", { class: i < 2 && keeps === !i ? "now" : "" },
        element("th", { scope: "row" }, ["with the cache", "without the cache", "with it, as the window moved"][i]),
        ...(row.length ? [row.length, whole(mean(row, "multiplications")), mean(row, "ms").toFixed(1)] : ["–", "–", "–"])
          .map((text) => element("td", {}, `${text}`))))));
    const [kept, anew] = rows;
    const times = (name) => (mean(anew, name) / mean(kept, name)).toFixed(0);
    const inTime = mean(kept, "ms") > 0 ? ` and ${times("ms")} times the time` : "";
    byId("saved").textContent = kept.length && anew.length
      ? `Without it a character costs ${times("multiplications")} times the multiplications${inTime}. `
        + `On average its window had ${whole(mean(kept, "T"))} characters with the cache and ${whole(mean(anew, "T"))} without.`
      : "Write some characters with the cache and some without, and compare.";
  }

  return update;
}
