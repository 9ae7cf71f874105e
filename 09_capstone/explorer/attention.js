// Panel 3: where every head looks, and what can be said about one of them.

import { byId, drawMap, element, largest, layerLabel, percent, shades, sign, visible } from "./show.js";
import { strip } from "./strip.js";

const CLEAR = 0.15, TIMES = 3; // a habit has this share of the weight, and so many times an even spread's
const TELLING = 12; // characters of the shortest text by which a head is judged
const LABELED = 64; // positions of the largest map whose rows and columns carry their characters

// What a head does with a text, as means over the queries for which the place exists and is none of
// the places before it: its weight on itself, the character before, the first letter of the word, and the
// last blank; what an even spread would give there; and the entropy of its rows in nats.
export function habitsOf(weights, characters) {
  const T = characters.length;
  const places = placesOf(characters);
  const habits = {};
  for (const [name, keys] of Object.entries(places)) {
    const queries = [...keys.keys()].filter((q) => keys[q] !== null);
    const sum = (value) => queries.reduce((total, q) => total + value(q), 0);
    const mean = (value) => queries.length ? sum(value) / queries.length : null;
    habits[name] = { weight: mean((q) => weights[q * T + keys[q]]), even: mean((q) => 1 / (q + 1)) };
  }
  let entropy = 0;
  for (const weight of weights) if (weight > 0) entropy -= weight * Math.log(weight) / T;
  return { places: habits, entropy };
}

export function placesOf(characters) {
  const itself = [], previous = [], first = [], blank = [];
  let word = 0, space = null; // where the word began, and the blank in front of it
  characters.forEach((character, q) => {
    itself.push(q);
    previous.push(q > 0 ? q - 1 : null);
    const letter = /[\p{L}\p{N}'’]/u.test(character);
    if (!letter) word = q + 1;
    first.push(letter && word < q - 1 ? word : null);
    blank.push(space !== null && space < q - 1 && !/\s/u.test(character) ? space : null);
    if (/\s/u.test(character)) space = q;
  });
  return {
    "the character itself": itself,
    "the character before": previous,
    "the first letter of the word": first,
    "the last blank": blank,
  };
}

const SHORT = {
  "the character itself": "itself",
  "the character before": "before",
  "the first letter of the word": "first",
  "the last blank": "blank",
};

// The places that a head clearly prefers to an even spread.
function preferred({ places }) {
  return Object.entries(places)
    .filter(([, { weight, even }]) => weight !== null && weight >= CLEAR && weight >= TIMES * even)
    .sort(([, a], [, b]) => b.weight - a.weight);
}

export function sentenceOf(name, habits) {
  const said = ([place, { weight }]) => `${percent(weight)} on ${place}`;
  const known = Object.entries(habits.places).filter(([, { weight }]) => weight !== null);
  const [liked] = preferred(habits);
  const others = known.filter(([place]) => place !== liked?.[0]).map(said).join(", ");
  const spread = ` A row of it spreads like ${Math.exp(habits.entropy).toFixed(1)} equal weights.`;
  if (!liked) return `${name} has none of four plain habits: it puts ${others}.${spread}`;
  const [place, { weight, even }] = liked;
  return `${name} prefers ${place}: ${percent(weight)} of its weight, where an even spread would put ${percent(even)}.`
    + (others && ` It puts ${others}.`) + spread;
}

export function attentionPanel(view) {
  const { n_layers: layers, n_heads: heads } = view.config;
  const nameOf = (i) => `layer ${Math.floor(i / heads)}, head ${i % heads}`;
  let chosen = null, hovered = null, key = null;
  const looks = strip(byId("looks"), choose, (at) => { hovered = at; point(); });
  const map = byId("map");
  const buttons = Array.from({ length: layers * heads }, (_, i) => {
    const button = element("button", { type: "button", role: "radio", "aria-label": nameOf(i) },
      element("canvas"), element("span", { class: "entropy" }), element("span", { class: "habit" }));
    button.addEventListener("click", () => pick(i));
    return button;
  });
  byId("heads").style.setProperty("--heads", heads);
  byId("heads").append(...buttons.flatMap((button, i) =>
    i % heads ? [button] : [layerLabel(i / heads), button]));
  byId("heads").addEventListener("keydown", (event) => {
    const now = chosen ?? 0;
    const next = {
      ArrowLeft: now - 1, ArrowRight: now + 1, ArrowUp: now - heads, ArrowDown: now + heads, Home: 0, End: buttons.length - 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    if (next >= 0 && next < buttons.length) pick(next).focus();
  });
  map.addEventListener("keydown", (event) => {
    const down = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const right = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!(down || right) || !view.reading) return;
    event.preventDefault();
    if (down) return choose(view.at + down);
    key = Math.max(view.reading.start, Math.min(view.at, (key ?? strongest(view.at)) + right));
    point();
  });
  map.addEventListener("pointermove", (event) => {
    if (!view.reading) return;
    const { q, k } = placeOf(event);
    if (k <= q) [hovered, key] = [q, k];
    point();
  });
  map.addEventListener("pointerleave", () => { hovered = key = null; point(); });
  map.addEventListener("click", (event) => view.reading && choose(placeOf(event).q));
  new ResizeObserver(update).observe(byId("heads"));

  function choose(at) {
    key = null;
    view.choose(Math.max(view.reading.start, Math.min(view.tokens.length - 1, at)));
  }

  function pick(i) {
    chosen = i;
    update();
    return buttons[i];
  }

  function placeOf(event) {
    const { left, top, width } = byId("map-canvas").getBoundingClientRect();
    const { start } = view.reading;
    const T = view.tokens.length - start;
    const place = (offset) => start + Math.max(0, Math.min(T - 1, Math.floor(offset / width * (T + 1))));
    return { q: place(event.clientY - top), k: place(event.clientX - left) };
  }

  function weightsOf(i) {
    const T = view.tokens.length - view.reading.start;
    return view.reading.attention.subarray(i * T * T, (i + 1) * T * T);
  }

  const weight = (q, k) => {
    const { start } = view.reading;
    return weightsOf(chosen)[(q - start) * (view.tokens.length - start) + k - start];
  };

  function strongest(q) {
    let best = view.reading.start;
    for (let k = best; k <= q; k++) if (weight(q, k) > weight(q, best)) best = k;
    return best;
  }

  // Show one row of the large map: that of the position pointed at, or else of the chosen one.
  function point() {
    map.classList.toggle("empty", !view.reading);
    if (!view.reading) return;
    const { start } = view.reading;
    const T = view.tokens.length - start;
    const q = hovered ?? view.at;
    const k = key !== null && key <= q && key >= start ? key : strongest(q);
    map.style.setProperty("--side", T + 1);
    map.style.setProperty("--q", q - start);
    map.style.setProperty("--k", k - start);
    const most = weight(q, strongest(q));
    looks.tint(Array.from({ length: T }, (_, i) => start + i <= q ? weight(q, start + i) / most : 0));
    byId("map-note").replaceChildren(sign(view.character(q)), ` (${q + 1}) puts ${percent(weight(q, k))} on `,
      sign(view.character(k)), ` (${k + 1})${k === q ? ", itself" : ""}`);
    byId("label-looks").replaceChildren("What ", sign(view.character(q)),
      ` at ${q + 1} looks at, by ${nameOf(chosen)}. Point at another, or go with the arrow keys.`);
  }

  function update() {
    if (!view.reading) {
      for (const id of ["sentence", "map-note", "label-map", "label-looks"]) byId(id).textContent = "";
      for (const canvas of [...byId("heads").querySelectorAll("canvas"), byId("map-canvas")]) canvas.width = 1;
      looks.show([], 0, null, 0);
      return point();
    }
    const { start } = view.reading;
    const characters = view.window();
    const T = characters.length, palette = shades();
    const habits = buttons.map((_, i) => habitsOf(weightsOf(i), characters));
    chosen ??= largest(habits.map(({ places }) => // a habit that is easily seen
      Math.max(places["the first letter of the word"].weight, places["the last blank"].weight)), 1)[0];
    const size = buttons[0].firstChild.clientWidth; // read before anything is drawn
    const full = byId("map-canvas").clientWidth;
    buttons.forEach((button, i) => {
      const [canvas, entropy, habit] = button.children;
      drawMap(canvas, weightsOf(i), T, size, palette);
      entropy.textContent = habits[i].entropy.toFixed(2);
      habit.textContent = (T >= TELLING && SHORT[preferred(habits[i])[0]?.[0]]) || "";
      button.classList.toggle("off", view.isOff(Math.floor(i / heads), i % heads));
      button.setAttribute("aria-checked", String(i === chosen));
      button.tabIndex = i === chosen ? 0 : -1;
    });
    byId("sentence").textContent = T < TELLING ? "Write some more: a longer text shows what this head does."
      : `On this text ${sentenceOf(nameOf(chosen), habits[chosen])}`;
    byId("label-map").textContent = `${nameOf(chosen)}: queries downwards, keys across`;
    drawMap(byId("map-canvas"), weightsOf(chosen), T, full, palette, 1); // for the last label
    label(characters);
    looks.show(characters, start, view.at, view.drawn.length);
    point();
  }

  // The characters along the diagonal, where there is room for them: the future is empty.
  function label(characters) {
    const canvas = byId("map-canvas"), T = characters.length;
    const cell = canvas.width / (T + 1);
    if (T > LABELED || cell < 8 * devicePixelRatio) return;
    const context = canvas.getContext("2d");
    const { fontFamily } = getComputedStyle(byId("looks"));
    context.font = `${Math.min(cell, 13 * devicePixelRatio)}px ${fontFamily}`;
    context.fillStyle = getComputedStyle(map).color;
    context.textAlign = "center";
    context.textBaseline = "middle";
    characters.forEach((character, i) => {
      context.fillText(visible(character), (i + 1.5) * cell, (i + 0.5) * cell);
    });
  }

  return update;
}
