// Panel 2: the distribution at the chosen position, what the rules make of it, and drawing from it.

import { bar, byId, element, largest, percent, sign, softmax } from "./show.js";
import { applyRules } from "./sampling.js";

const CHOICES = 12;
const TOLD = 60; // drawn characters that are told one by one

export function nextPanel(view) {
  const vocabulary = view.characters.length;
  let left = 0; // characters that are still to be written
  let first = 0; // drawn ones that came before the seed was changed
  const slider = (name) => byId(name).valueAsNumber;
  byId("top-k").max = byId("top-k").value = vocabulary;
  for (const name of ["temperature", "top-k", "top-p"]) byId(name).addEventListener("input", update);
  byId("seed").addEventListener("change", () => {
    byId("seed").value = seed();
    first = view.drawn.length;
  });
  byId("step").addEventListener("click", () => left === Infinity ? view.stop() : write(1));
  byId("run").addEventListener("click", () => left ? view.stop() : write(Infinity));
  byId("take-back").addEventListener("click", () => view.takeBack());
  view.write = write;

  const seed = () => Math.min(2 ** 32 - 1, Math.max(0, Math.floor(slider("seed") || 0)));

  function rules() {
    return {
      temperature: slider("temperature"),
      top_k: slider("top-k") < vocabulary ? slider("top-k") : null,
      top_p: slider("top-p") < 1 ? slider("top-p") : null,
    };
  }

  // Draw characters at the end of the text until someone stops it. Those that are asked for while it
  // writes come after the others.
  async function write(count) {
    left += count;
    if (left > count) return;
    const mine = view.begin();
    byId("run").setAttribute("aria-pressed", "true");
    byId("run").textContent = "stop";
    for (; left > 0 && view.tokens.length && view.isOn(mine); left--) {
      const used = rules();
      const kept = byId("cache").checked;
      const drawn = await view.ask("draw", {
        tokens: view.tokens, ...used, seed: seed(), step: view.drawn.length - first, off: view.off, cache: kept,
      });
      if (!drawn || !view.isOn(mine)) break;
      await view.append({ ...drawn, rule: ruleOf(drawn, used) }, kept);
      await new Promise(requestAnimationFrame);
    }
    left = 0;
    view.end(mine);
    byId("run").setAttribute("aria-pressed", "false");
    byId("run").textContent = "run";
  }

  function ruleOf(drawn, { temperature, top_k, top_p }) {
    if (temperature === 0) return "greedy, the likeliest";
    const left = drawn.cut.filter((cut) => !cut).length;
    const cutters = [top_k && `top-k ${top_k}`, top_p && `top-p ${top_p}`].filter(Boolean).join(" and ");
    return `drawn with ${percent(drawn.chance)}, from `
      + (cutters ? `${left === 1 ? "the only one" : `the ${left}`} that ${cutters} left` : `all ${left}`)
      + (temperature === 1 ? "" : ` at temperature ${temperature}`);
  }

  function update() {
    const used = rules();
    first = Math.min(first, view.drawn.length);
    byId("temperature-is").textContent = used.temperature || "0, greedy";
    byId("top-k-is").textContent = used.top_k ?? "off";
    byId("top-p-is").textContent = used.top_p ?? "off";
    for (const name of ["step", "run", "write-ten"]) byId(name).disabled = !view.reading;
    byId("take-back").disabled = !view.drawn.length;
    byId("drawn").replaceChildren(...view.drawn.slice(-TOLD).reverse().map(({ token, rule }) =>
      element("li", {}, sign(view.characters[token]), ` ${rule}`)));
    byId("drawn").start = view.drawn.length;
    if (!view.reading) {
      for (const id of ["bars", "rest", "next-note"]) byId(id).replaceChildren();
      return;
    }
    const logits = view.logits(view.at);
    const plain = softmax(logits);
    const { probabilities, cut } = applyRules(logits, used);
    const shown = largest(plain, CHOICES);
    const wide = Math.max(plain[shown[0]], ...probabilities);
    const actual = view.tokens[view.at + 1];
    byId("next-note").replaceChildren("After ", ...view.before(view.at),
      ...view.goesOn(view.at, ", where the text goes on with "));
    const row = (id) => bar(view.characters[id], probabilities[id], wide, {
      own: plain[id], cut: cut[id] === "temperature" ? "greedy" : cut[id], mark: id === actual,
    });
    byId("bars").replaceChildren(element("tbody", {}, ...shown.map(row)));
    const others = [...plain.keys()].filter((id) => !shown.includes(id));
    const kept = others.filter((id) => !cut[id]);
    const share = others.reduce((sum, id) => sum + probabilities[id], 0);
    const told = !kept.length ? ", all cut off" : ` share ${percent(share)}`
      + (kept.length < others.length ? `, ${others.length - kept.length} of them are cut off` : "");
    byId("rest").textContent = (others.length ? `${others.length} more${told}. ` : "")
      + "The wide bars are the model's own chances, the narrow ones what the rules make of them.";
  }

  return update;
}
