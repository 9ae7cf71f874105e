// Panel 5: switch heads and feed-forwards off, and see what the model loses.

import { bar, byId, element, largest, layerLabel, softmax } from "./show.js";

const LIKELIEST = 8;

export function awayPanel(view) {
  const { n_layers: layers, n_heads: heads } = view.config;
  const parts = Array.from({ length: layers }, (_, layer) => [
    ...Array.from({ length: heads }, (_, head) => ({ layer, head, name: `layer ${layer}, head ${head}` })),
    { layer, head: null, name: `layer ${layer}, feed-forward` },
  ]).flat();
  for (const part of parts) {
    part.costs = element("span", { class: "habit" });
    part.button = element("button", { type: "button", "aria-label": part.name },
      part.head === null ? "feed-forward" : `${part.head}`, part.costs);
    part.button.addEventListener("click", () => view.toggle(part.layer, part.head));
  }
  byId("parts").style.setProperty("--heads", heads);
  byId("parts").append(...parts.flatMap(({ layer, head, button }) =>
    head === 0 ? [layerLabel(layer), button] : [button]));
  byId("all-back").addEventListener("click", () => view.read({ off: { heads: [], mlps: [] } }));
  byId("try-each").addEventListener("click", () => view.stop() || tryEach());

  // Each part alone is taken away for a moment, and what the loss rises by is written on it.
  async function tryEach() {
    const mine = view.begin();
    const { tokens, whole } = view;
    const rises = [];
    view.trying = true;
    byId("try-each").setAttribute("aria-pressed", "true");
    byId("try-each").textContent = "stop";
    for (const { layer, head } of parts) {
      byId("try-note").textContent = `${rises.length} of ${parts.length} tried`;
      const off = head === null ? { heads: [], mlps: [layer] } : { heads: [[layer, head]], mlps: [] };
      const reading = view.isOn(mine) && await view.ask("read", { tokens, off });
      if (!reading) break;
      rises.push(view.loss(reading) - view.loss(whole));
    }
    view.trying = false;
    byId("try-each").setAttribute("aria-pressed", "false");
    byId("try-each").textContent = "try each in turn";
    byId("try-note").textContent = "";
    if (view.tokens === tokens && rises.length === parts.length) tell(rises);
    view.end(mine);
    view.read();
  }

  function tell(rises) {
    const most = Math.max(0.01, ...rises);
    rises.forEach((rise, i) => {
      parts[i].costs.textContent = signed(rise);
      parts[i].button.style.setProperty("--v", Math.max(0, rise) / most);
    });
    const [worst, next] = largest(rises, 2);
    const shows = (part) => rises[part] >= 0.005; // as a number with two places
    byId("try-note").textContent = "What the mean loss rises by, in nats, without that part alone. "
      + (shows(worst) ? `Missed most: ${parts[worst].name}${shows(next) ? `, then ${parts[next].name}` : ""}.`
        : "The text misses none of them.");
  }

  function signed(rise) {
    const size = Math.abs(rise).toFixed(2);
    return size === "0.00" ? size : (rise < 0 ? "−" : "+") + size;
  }

  function forgetCosts() {
    byId("try-note").textContent = "";
    for (const { costs, button } of parts) {
      costs.textContent = "";
      button.style.removeProperty("--v");
    }
  }

  let measured = {}; // what the costs on the parts are true of
  return function update() {
    if (measured.tokens !== view.tokens || measured.snapshot !== view.snapshot) forgetCosts();
    measured = { tokens: view.tokens, snapshot: view.snapshot };
    for (const { layer, head, button } of parts) {
      button.setAttribute("aria-pressed", String(view.isOff(layer, head)));
    }
    const off = view.offs();
    byId("all-back").disabled = !off;
    byId("try-each").disabled = view.tokens.length < 2;
    if (!view.reading) {
      byId("away-loss").textContent = "";
      return ["before", "after"].forEach((id) => byId(id).replaceChildren());
    }
    const [before, after] = [view.loss(view.whole), view.loss(view.reading)];
    byId("away-loss").textContent = before === null ? "One character has no loss; write another."
      : `Mean loss ${before.toFixed(2)} with everything` + (off
        ? `, ${after.toFixed(2)} without ${off === 1 ? "this part" : `these ${off} parts`}: `
          + `${after < before ? "down" : "up"} by ${Math.abs(after - before).toFixed(2)} nats.`
        : ". Nothing is switched off.");
    const sides = [view.whole, view.reading].map((reading) => softmax(view.logits(view.at, reading)));
    const wide = Math.max(...sides[0], ...sides[1]);
    const actual = view.tokens[view.at + 1];
    ["before", "after"].forEach((id, side) => byId(id).replaceChildren(
      element("caption", {}, side ? "with what is left" : "with everything"),
      element("tbody", {}, ...largest(sides[side], LIKELIEST).map((token) =>
        bar(view.characters[token], sides[side][token], wide, { mark: token === actual })))));
  };
}
