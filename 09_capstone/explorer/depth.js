// Panel 4: the chosen position on its way through the layers.

import { byId, element, headings, largest, percent, sign, spoken } from "./show.js";

const GUESSES = 4;

function guess(character, chance, right) {
  const name = `${spoken(character)} ${percent(chance)}`;
  return element("span",
    { class: right ? "guess mark" : "guess", "--v": chance, role: "img", "aria-label": name },
    sign(character), ` ${percent(chance)}`);
}

function length(what, number, most) {
  if (number === undefined) return element("td");
  const fill = element("span", { class: "fill", "--v": number / most });
  return element("td", { "data-what": what },
    element("span", { class: "track", "aria-hidden": "true" }, fill),
    element("span", { class: "number" }, number.toFixed(1)));
}

export function depthPanel(view) {
  return function update() {
    const { inside } = view;
    if (!inside) return ["depth", "depth-note"].forEach((id) => byId(id).replaceChildren());
    const actual = view.tokens[inside.at + 1];
    byId("depth-note").replaceChildren("What it would say after ", ...view.before(inside.at),
      ", if it stopped there", ...view.goesOn(inside.at, "; the text goes on with "));
    const longest = Math.max(...inside.norms);
    const most = Math.max(...inside.attention, ...inside.mlp);
    byId("depth").replaceChildren(
      headings("stopped after", "it would say", "length of the stream", "attention added", "feed-forward added"),
      element("tbody", {}, ...inside.lens.map((chances, depth) => {
        const guesses = largest(chances, GUESSES).map((id) => guess(view.characters[id], chances[id], id === actual));
        return element("tr", {},
          element("th", { scope: "row" }, depth ? `layer ${depth - 1}` : "embedding"),
          element("td", { class: "guesses" }, ...guesses),
          length("length", inside.norms[depth], longest),
          length("attention", inside.attention[depth - 1], most),
          length("feed-forward", inside.mlp[depth - 1], most));
      })));
  };
}
