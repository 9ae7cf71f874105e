// Runs the model beside the page, which never waits for it. Each message {id, kind, ...} is
// answered by one of the same id; what a newer one of its kind makes useless is dropped midway.

import { spent, stable_softmax } from "./arithmetic.js";
import { KVCache, NOTHING, TinyTransformerLM } from "./model.js";
import { applyRules, drawn_at, uniform, window_start } from "./sampling.js";

const CHUNK = 8; // positions that are read before the worker looks whether there is news
const kinds = { load, use, read, inside, draw };
const past = { load: "loaded", use: "used", read: "read", inside: "inside", draw: "drawn" };
const newest = {}; // of each kind, the last message's id
let data, models, model;
let whole, lesser; // the text as read by the whole model, and by one of which something is off
let text; // whichever of them was read last
let before = Promise.resolve();

self.onmessage = ({ data: message }) => {
  newest[message.kind] = message.id;
  before = before.then(() => answer(message));
};

async function answer({ id, kind, ...request }) {
  const useless = () => newest[kind] !== id;
  try {
    const reply = useless() ? null : await kinds[kind](request, useless);
    if (reply) self.postMessage({ id, kind: past[kind], ...reply }, buffersOf(reply));
    else self.postMessage({ id, kind: "cancelled" });
  } catch (error) {
    self.postMessage({ id, kind: "error", message: error.message });
  }
}

async function load(request) {
  data = request.data;
  models = data.weights.map(() => null);
  await use({ snapshot: models.length - 1 });
  const { max_len, n_layers, n_heads, vocab_size } = data.config;
  const numbers = data.weights.at(-1).tensors.map(([, shape]) => size(shape));
  return {
    parameters: numbers.reduce((a, b) => a + b),
    context: max_len,
    layers: n_layers,
    heads: n_heads,
    vocab: vocab_size,
    snapshots: models.length,
  };
}

async function use({ snapshot }) {
  models[snapshot] ??= new TinyTransformerLM(data.config, await unpacked(data.weights[snapshot]));
  model = models[snapshot];
  text = whole = lesser = null;
  return {};
}

async function read({ tokens, off = NOTHING }, useless) {
  text = remembered(window_start(tokens.length, model.config.max_len), off);
  const cost = await catchUp(text, tokens, useless);
  if (!cost) return null;
  const { n_layers, n_heads, vocab_size } = model.config;
  const T = text.tokens.length;
  const logits = new Float32Array(T * vocab_size);
  const attention = new Float32Array(n_layers * n_heads * T * T);
  for (let t = 0; t < T; t++) {
    logits.set(text.logits[t], t * vocab_size);
    text.weights[t].forEach((row, head) => attention.set(row, (head * T + t) * T));
  }
  return { logits, attention, start: text.start, ...cost };
}

// The position `at` is read once more, with the keys before it, and looked at on its way.
function inside({ at }) {
  const length = text.cache.length;
  const t = at - text.start;
  if (t < 0 || t >= length) throw new Error(`position ${at} is not in the window that was read`);
  const seen = { stream: [], attention: [], feed_forward: [], weights: [] };
  const watch = (what, layer, numbers) => seen[what].push(numbers);
  text.cache.length = t;
  model.forward(text.tokens.slice(0, t + 1), text.cache, text.off, watch);
  text.cache.length = length;
  return {
    lens: seen.stream.map((x) => stable_softmax(model.head.forward(model.ln_f.forward(x)))),
    norms: seen.stream.map(lengthOf),
    attention: seen.attention.map(lengthOf),
    mlp: seen.feed_forward.map(lengthOf),
  };
}

async function draw({ tokens, off = NOTHING, cache = true, seed, step, ...rules }, useless) {
  if (!tokens.length) throw new Error("there is nothing to continue: write a character first");
  const start = window_start(tokens.length, model.config.max_len);
  const reading = cache ? remembered(start, off) : unread(start, off);
  const cost = await catchUp(reading, tokens, useless);
  if (!cost) return null;
  const { probabilities, cut } = applyRules(reading.logits.at(-1), rules);
  const token = drawn_at(uniform(seed, step), probabilities);
  return {
    token,
    probabilities,
    cut,
    kept: cut.map((rule) => !rule),
    chance: probabilities[token],
    cache: { filled: cache ? reading.cache.length : 0, of: model.config.max_len },
    ...cost,
  };
}

// What was read before by a model of which the same is off, if the window has not moved.
function remembered(start, off) {
  const part = off.heads.length + off.mlps.length > 0;
  const known = part ? lesser : whole;
  if (known?.start === start && JSON.stringify(known.off) === JSON.stringify(off)) return known;
  return part ? (lesser = unread(start, off)) : (whole = unread(start, off));
}

function unread(start, off) {
  return { start, off, tokens: [], logits: [], weights: [], cache: new KVCache(model.config) };
}

// Reads what is new of the tokens in the window. -> what it took, or null if it became useless.
async function catchUp(reading, tokens, useless) {
  const window = tokens.slice(reading.start);
  let cached = reading.tokens.findIndex((token, t) => token !== window[t]);
  if (cached < 0) cached = reading.tokens.length;
  keep(reading, cached);
  const began = performance.now();
  const already = spent.multiplications;
  while (reading.tokens.length < window.length) {
    if (reading.tokens.length > cached) await pause();
    if (useless()) return null;
    readMore(reading, window.slice(0, reading.tokens.length + CHUNK));
  }
  const multiplications = spent.multiplications - already;
  return { ms: performance.now() - began, multiplications, cached };
}

function keep(reading, length) {
  reading.tokens.length = reading.logits.length = reading.weights.length = length;
  reading.cache.length = length;
}

function readMore(reading, tokens) {
  const { vocab_size, n_heads } = model.config;
  const first = reading.tokens.length;
  const T = tokens.length - first;
  for (let t = 0; t < T; t++) reading.weights.push([]);
  const logits = model.forward(tokens, reading.cache, reading.off, (what, _, numbers) => {
    if (what !== "weights") return;
    const S = tokens.length; // numbers are (n_heads, T, S)
    for (let row = 0; row < n_heads * T; row++) {
      const t = first + (row % T);
      reading.weights[t].push(numbers.subarray(row * S, row * S + t + 1));
    }
  });
  if (!logits.every(Number.isFinite)) throw new Error("with these weights the numbers overflow");
  for (let t = 0; t < T; t++) {
    reading.logits.push(logits.subarray(t * vocab_size, (t + 1) * vocab_size));
  }
  reading.tokens = tokens;
}

// What `packed` of explore.py wrote: digits to bytes, their code undone, planes to numbers.
async function unpacked({ tensors, kind, bytes, data }) {
  if (!self.DecompressionStream) {
    throw new Error("this browser is too old: it needs Chrome 80, Firefox 113 or Safari 16.4");
  }
  const code = new Blob([fromDigits(data).subarray(0, bytes)]);
  const planes = code.stream().pipeThrough(new DecompressionStream("deflate"));
  const numbers = floats(new Uint8Array(await new Response(planes).arrayBuffer()), kind);
  let end = 0;
  return Object.fromEntries(
    tensors.map(([name, shape]) => [name, numbers.subarray(end, (end += size(shape)))]),
  );
}

// Five digits of base 85 to four bytes; the digits are the characters from ( to ~ without < and \.
function fromDigits(text) {
  const bytes = new DataView(new ArrayBuffer((text.length / 5) * 4));
  for (let i = 0, at = 0; i < text.length; at += 4) {
    let word = 0;
    for (let end = i + 5; i < end; i++) {
      const code = text.charCodeAt(i);
      word = word * 85 + code - 40 - (code > 60) - (code > 92);
    }
    bytes.setUint32(at, word);
  }
  return new Uint8Array(bytes.buffer);
}

// Of each number the first byte, then of each the second, and so on. bfloat16 is the upper half of
// a float32.
function floats(planes, kind) {
  const width = kind === "bfloat16" ? 2 : 4;
  const count = planes.length / width;
  const bytes = new Uint8Array(4 * count);
  for (let plane = 0; plane < width; plane++) {
    for (let n = 0; n < count; n++) bytes[4 * n + 4 - width + plane] = planes[plane * count + n];
  }
  return new Float32Array(bytes.buffer);
}

function size(shape) {
  return shape.reduce((product, n) => product * n, 1);
}

function lengthOf(x) {
  return Math.hypot(...x);
}

function buffersOf(reply) {
  return Object.values(reply).filter(ArrayBuffer.isView).map((view) => view.buffer);
}

// Lets messages in that have come meanwhile.
const channel = new MessageChannel();
function pause() {
  return new Promise((resolve) => {
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(null);
  });
}
