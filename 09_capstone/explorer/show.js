// What all panels draw with: elements, characters that can be seen, numbers, colors, maps.
// Text only ever becomes a text node or an attribute's value, so it is never markup.

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("--")) node.style.setProperty(name, value); // `style="…"` the policy forbids
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function drawing(tag, properties, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const SIGNS = { " ": "␣", "\n": "⏎", "\t": "⇥" };
const SPOKEN = { " ": "blank", "\n": "new line", "\t": "tab" };

// A character as a sign that can be seen; what has none is written as its number.
export function visible(character) {
  const unseen = /[\p{C}\p{Z}\p{M}]/u.test(character);
  return SIGNS[character] ?? (unseen ? codeOf(character) : character);
}

export const spoken = (character) => SPOKEN[character] ?? visible(character);

export function codeOf(character) {
  return "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
}

export const sign = (character) => element("span", { class: "sign" }, visible(character));
export const signs = (characters) => element("span", { class: "signs" }, ...characters.map(sign));

export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1%";
  return share >= 0.0995 ? `${Math.round(100 * share)}%` : `${(100 * share).toFixed(1)}%`;
}

export const whole = (number) => Math.round(number).toLocaleString("en-US");

export function softmax(logits) {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Float64Array.from(logits, (z) => Math.exp(z - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

// The indices of the largest numbers, largest first.
export function largest(numbers, count) {
  return [...numbers.keys()].sort((a, b) => numbers[b] - numbers[a]).slice(0, count);
}

// A row of a table of bars: a character and its share, drawn against the share `wide`; behind it the
// model's own, before the rules. `cut` names the rule that left nothing of it.
export function bar(character, share, wide, { own = null, cut = "", mark = false } = {}) {
  return element("tr", { class: [mark && "mark", cut && "cut"].filter(Boolean).join(" ") },
    element("th", { scope: "row", "aria-label": spoken(character) }, sign(character)),
    element("td", { class: "track", "aria-hidden": "true" },
      own === null ? "" : element("span", { class: "own", "--v": own / wide }),
      element("span", { class: "fill", "--v": share / wide })),
    element("td", { class: "number" }, cut || percent(share)));
}

export function headings(...titles) {
  const cells = titles.map((title) => element("th", { scope: "col" }, title));
  return element("thead", {}, element("tr", {}, ...cells));
}

// The number of a layer, in front of the buttons of its parts.
export const layerLabel = (layer) => element("span", { class: "layer", "aria-hidden": "true" }, `${layer}`);

// 256 shades for weights from 0 to 1. They run over the stops in page.css, faster at the
// beginning, so that small weights can be seen.
export function shades() {
  const style = getComputedStyle(document.documentElement);
  const stops = [0, 1, 2, 3, 4].map((n) => style.getPropertyValue(`--shade-${n}`).trim())
    .map((stop) => [1, 3, 5].map((i) => parseInt(stop.slice(i, i + 2), 16)));
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) ** 0.7 * (stops.length - 1);
    const left = Math.min(Math.floor(place), stops.length - 2);
    const mixed = (from, c) => Math.round(from + (place - left) * (stops[left + 1][c] - from));
    const [r, g, b] = stops[left].map(mixed);
    return (255 << 24 | b << 16 | g << 8 | r) >>> 0; // as the bytes r, g, b, a
  });
}

// A map of weights (T, T), queries in rows, keys in columns, `size` CSS pixels wide, of which `room`
// more columns stay empty at the right. Where a pixel is narrower than a weight, it shows the
// largest of its weights, so that thin lines stay.
export function drawMap(canvas, weights, T, size, palette, room = 0) {
  const pixels = Math.max(1, Math.round(size * devicePixelRatio));
  canvas.width = canvas.height = pixels;
  const image = new ImageData(pixels, pixels);
  const shade = new Uint32Array(image.data.buffer);
  const from = Array.from({ length: pixels + 1 }, (_, pixel) => Math.floor(pixel * (T + room) / pixels));
  const to = (pixel) => Math.min(T, Math.max(from[pixel] + 1, from[pixel + 1]));
  for (let y = 0; y < pixels && from[y] < T; y++) {
    for (let x = 0; x < pixels && from[x] <= from[y]; x++) { // the future is not seen: empty
      let most = 0;
      for (let q = from[y]; q < to(y); q++) {
        for (let k = from[x]; k < to(x); k++) most = Math.max(most, weights[q * T + k]);
      }
      shade[y * pixels + x] = palette[Math.round(255 * Math.min(1, most))];
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}
