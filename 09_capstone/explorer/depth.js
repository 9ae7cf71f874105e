// Panel 4: the chosen position on its way through the layers.

import { byId, element, largest, percent, sign, spoken } from "./show.js";

const GUESSES = 4;

export function depthPanel(view) {
  const length = (what, number, most) => number === undefined ? element("td") : element("td", { "data-what": what },
    element("span", { class: "track", "aria-hidden": "true" }, element("span", { class: "fill", "--v": number / most })),
    element("span", { class: "number" }, number.toFixed(1)));

  return function update() {
    const { inside } = view;
    if (!inside) return ["depth", "depth-note"].forEach((id) => byId(id).replaceChildren());
    const actual = view.tokens[inside.at + 1];
    byId("depth-note").replaceChildren("What it would say after ", ...view.before(inside.at, 8),
      ", if it stopped there", ...(actual === undefined ? [] : ["; the text goes on with ", sign(view.characters[actual])]));
    const longest = Math.max(...inside.norms);
    const most = Math.max(...inside.attention, ...inside.mlp);
    const head = ["stopped after", "it would say", "length of the stream", "attention added", "feed-forward added"];
    byId("depth").replaceChildren(
      element("thead", {}, element("tr", {}, ...head.map((title) => element("th", { scope: "col" }, title)))),
      element("tbody", {}, ...inside.lens.map((chances, depth) => {
        const guesses = largest(chances, GUESSES).map((id) => element("span",
          { class: `guess${id === actual ? " mark" : ""}`, "--v": chances[id], "aria-label": `${spoken(view.characters[id])} ${percent(chances[id])}`, role: "img" },
          sign(view.characters[id]), ` ${percent(chances[id])}`));
        return element("tr", {},
          element("th", { scope: "row" }, depth ? `layer ${depth - 1}` : "embedding"),
          element("td", { class: "guesses" }, ...guesses),
          length("length", inside.norms[depth], longest),
          length("attention", inside.attention[depth - 1], most),
          length("feed-forward", inside.mlp[depth - 1], most));
      })));
  };
}
