// Panel 1: the text that is typed, and how much each of its characters surprised the model.

import { byId, codeOf, element, percent, sign, visible, whole } from "./show.js";
import { strip } from "./strip.js";

const NAMED = 8; // kinds of unknown characters that are named one by one

// Characters to ids. Those that the model has never seen are counted, and left out.
export function encode(text, ids) {
  const tokens = [], unknown = new Map();
  for (const character of text) {
    if (ids.has(character)) tokens.push(ids.get(character));
    else unknown.set(character, (unknown.get(character) ?? 0) + 1);
  }
  return { tokens, unknown };
}

export function textPanel(view) {
  const shown = strip(byId("surprise"), view.choose, note);
  const box = byId("text");
  box.addEventListener("input", () => view.typed(box.value, box.selectionStart));

  function note(at) {
    at ??= view.at;
    const line = byId("surprise-note");
    if (!view.reading) return line.replaceChildren();
    const surprise = view.surprises(view.reading)[at - view.reading.start];
    const where = `Character ${at + 1} of ${view.tokens.length}, `;
    line.replaceChildren(where, sign(view.character(at)));
    if (surprise === null) return line.append(": nothing that the model sees stands before it.");
    const chances = view.chances(at - 1);
    const likeliest = chances.indexOf(Math.max(...chances));
    line.append(`: ${surprise.toFixed(2)} nats, it was given ${percent(Math.exp(-surprise))}, its first guess`);
    if (likeliest !== view.tokens[at]) line.append(" was ", sign(view.characters[likeliest]));
    line.append(".");
  }

  function nameUnknown() {
    const kinds = [...view.unknown];
    const left = kinds.length - NAMED;
    byId("unknown").replaceChildren(...(kinds.length ? [
      "Not in this model's alphabet, and left out: ",
      ...kinds.slice(0, NAMED).flatMap(([character, times], i) => [
        i ? ", " : "",
        element("span", { class: "sign" }, visible(character)),
        visible(character) === codeOf(character) ? "" : ` (${codeOf(character)})`,
        times > 1 ? ` × ${times}` : "",
      ]),
      left > 0 ? ` and ${left} more kinds.` : ".",
    ] : []));
  }

  return function update() {
    nameUnknown();
    if (!view.reading) {
      shown.show([], 0, null, 0);
      byId("most").textContent = byId("mean").textContent = "";
      byId("surprise-note").textContent = "There is nothing to read yet. Write a character that it knows.";
      return;
    }
    const start = view.reading.start;
    const surprises = view.surprises(view.reading);
    const known = surprises.filter((surprise) => surprise !== null);
    const most = Math.max(1, ...known);
    shown.show(view.window(), start, view.at, view.drawn.length);
    shown.tint(surprises.map((surprise) => (surprise ?? 0) / most));
    const loss = view.loss(view.reading)?.toFixed(2);
    const over = known.length === 1 ? "one character" : `${known.length} characters`;
    byId("most").textContent = `${most.toFixed(1)} nats`;
    byId("mean").textContent = (loss ? `Mean loss ${loss} over ${over}.` : "")
      + (start ? ` It no longer sees the ${whole(start)} before these: its context is ${view.config.max_len}.` : "");
    note(null);
  };
}
