// The page: what all panels look at, and the worker that does the arithmetic.

import { attentionPanel } from "./attention.js";
import { awayPanel } from "./away.js";
import { cachePanel } from "./cache.js";
import { depthPanel } from "./depth.js";
import { learnedPanel } from "./learned.js";
import { NOTHING } from "./model.js";
import { nextPanel } from "./next.js";
import { byId, element, sign, signs, softmax, whole } from "./show.js";
import { encode, textPanel } from "./text.js";

const COSTS = 200; // drawn characters whose costs are kept
const SOON = 150; // ms of reading that need no sign
const BEFORE = 8; // characters that are named before a position
const AROUND = 40; // and that are shown on both sides of it in the line that stays in sight

// Every question is answered once: with a message, or with null where newer work came between.
function connect(script) {
  const worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
  const waiting = new Map();
  let last = 0;
  worker.onmessage = ({ data: answer }) => {
    if (answer.kind === "error") trouble(answer.message);
    waiting.get(answer.id)?.(["error", "cancelled"].includes(answer.kind) ? null : answer);
    waiting.delete(answer.id);
  };
  worker.onerror = (event) => trouble(event.message);
  return (kind, fields) => new Promise((resolve) => {
    waiting.set(++last, resolve);
    worker.postMessage({ id: last, kind, ...fields });
  });
}

function trouble(message) {
  byId("trouble").hidden = false;
  byId("trouble").textContent = `The model stopped: ${message}`;
}

// What takes long enough to be seen dims the numbers of before.
let dims = 0;
function busy(reads) {
  clearTimeout(dims);
  if (reads) dims = setTimeout(() => byId("main").setAttribute("aria-busy", "true"), SOON);
  else byId("main").removeAttribute("aria-busy");
}

const data = JSON.parse(byId("data").textContent);
const ids = new Map(data.characters.map((character, id) => [character, id]));

const view = {
  data, config: data.config, characters: data.characters,
  ask: connect(byId("worker").textContent),
  tokens: [], unknown: new Map(), at: null, // the position looked at, counted from the text's first
  off: NOTHING, snapshot: data.snapshots.length - 1,
  whole: null, reading: null, inside: null, // read with everything, read without what is off, the depth
  drawn: [], costs: [], // what the model wrote at the end of the text, and what that took
  pending: null, // changes of all these that wait for the worker
  writing: null, trying: false, follows: true, // whether the position goes with what is written

  logits(at, reading = view.reading) {
    const row = at - reading.start;
    return reading.logits.subarray(row * data.characters.length, (row + 1) * data.characters.length);
  },
  chances: (at, reading) => softmax(view.logits(at, reading)),
  character: (at) => data.characters[view.tokens[at]],
  // -ln p of each character that the model sees. Nothing stands before the first, so it has none.
  surprises(reading) {
    const { start } = reading;
    return reading.surprises ??= view.tokens.slice(start).map((token, t) =>
      t ? -Math.log(view.chances(start + t - 1, reading)[token]) : null);
  },
  loss(reading) {
    const [, ...known] = view.surprises(reading);
    return known.length ? known.reduce((a, b) => a + b) / known.length : null;
  },
  text: (from, to) => view.tokens.slice(Math.max(0, from), to).map((id) => data.characters[id]),
  window: () => view.text(view.reading.start), // what the model sees of it
  before(at) { // the last characters up to a position, as signs
    return [at >= BEFORE ? "…" : "", signs(view.text(at + 1 - BEFORE, at + 1))];
  },
  goesOn(at, words) { // how the text goes on after a position, if it does
    return at + 1 < view.tokens.length ? [words, sign(view.character(at + 1))] : [];
  },
  isOff(layer, head) {
    if (head === null) return view.off.mlps.includes(layer);
    return view.off.heads.some(([l, h]) => l === layer && h === head);
  },
  offs: () => view.off.heads.length + view.off.mlps.length,

  // One thing at a time writes or tries: whoever begins gets a sign that is on until it is stopped.
  begin() {
    view.follows = true;
    return view.writing = {};
  },
  isOn: (mine) => view.writing === mine,
  end: (mine) => { if (view.writing === mine) view.writing = null; },
  stop: () => view.writing !== null && !(view.writing = null),

  // The position looked at is that before the caret.
  typed(text, caret = text.length) {
    view.stop();
    const { tokens, unknown } = encode(text, ids);
    const before = encode(text.slice(0, caret), ids).tokens.length;
    return view.read({ tokens, unknown, drawn: [], at: Math.max(0, before - 1) });
  },
  // What a character takes: with the cache the reading of it, without the reading of all for it.
  append(drawn, kept) {
    byId("text").value += data.characters[drawn.token];
    const tokens = [...view.tokens, drawn.token];
    const at = view.follows ? tokens.length - 1 : view.at;
    return view.read({ tokens, drawn: [...view.drawn, drawn], at }, (reading) => {
      const { ms, multiplications } = kept ? reading : drawn;
      const T = tokens.length - reading.start;
      const moved = kept && reading.cached < T - 1; // the window, so that all of it was read anew
      view.costs = [...view.costs, { kept, moved, T, ms, multiplications }].slice(-COSTS);
    });
  },
  takeBack() {
    byId("text").value = view.text(0, view.tokens.length - view.drawn.length).join("");
    view.typed(byId("text").value);
  },
  choose(at) {
    view.at = at;
    if (view.writing) { // then it stays, unless it is the end, where the writing goes on
      view.follows = at === view.tokens.length - 1;
      if (view.pending && !view.follows) view.pending.at = at;
    }
    update();
    look();
  },
  toggle(layer, head) {
    const { heads, mlps } = (view.pending ?? view).off;
    const others = heads.filter(([l, h]) => l !== layer || h !== head);
    const rest = mlps.filter((l) => l !== layer);
    const off = head === null
      ? { heads, mlps: rest.length < mlps.length ? rest : [...mlps, layer] }
      : { heads: others.length < heads.length ? others : [...heads, [layer, head]], mlps };
    view.read({ off });
  },
  async use(snapshot) {
    view.stop();
    if (await view.ask("use", { snapshot })) await view.read({ snapshot });
  },

  // Read the text again after a change. Until the answer comes all panels show what was before, and
  // a change that comes meanwhile is added to those that wait.
  async read(change = {}, count = () => {}) {
    const now = { tokens: view.tokens, off: view.off, at: view.at };
    const next = view.pending = { ...now, ...view.pending, ...change };
    const { tokens, off } = next;
    busy(tokens.length > 0);
    if (!tokens.length) {
      Object.assign(view, next, { whole: null, reading: null, inside: null, at: null, pending: null });
      return update();
    }
    const all = await view.ask("read", { tokens, off: NOTHING });
    const parts = off.heads.length + off.mlps.length;
    const some = all && parts ? await view.ask("read", { tokens, off }) : all;
    if (view.pending !== next) return;
    busy(false);
    if (!some) return;
    byId("trouble").hidden = true;
    Object.assign(view, next, { whole: all, reading: some, pending: null });
    view.at = Math.max(view.at, some.start);
    count(some);
    update();
    await look();
  },
};

// The worker knows the inside of the text that it read last.
async function look() {
  const { at, reading } = view;
  if (!reading || view.pending || view.trying) return;
  const inside = await view.ask("inside", { at });
  if (!inside || at !== view.at || reading !== view.reading) return;
  view.inside = { ...inside, at };
  depth();
}

const depth = depthPanel(view);
const makers = [textPanel, nextPanel, attentionPanel, awayPanel, cachePanel, learnedPanel];
const panels = makers.map((make) => make(view));

function update() {
  around();
  for (const panel of panels) panel();
  if (!view.reading) depth();
}

// The line that stays in sight: the chosen position and what stands around it.
function around() {
  byId("back").disabled = !view.reading || view.at <= view.reading.start;
  byId("forth").disabled = !view.reading || view.at >= view.tokens.length - 1;
  const { at } = view;
  const off = view.offs() ? `, ${view.offs()} off` : "";
  byId("count").textContent = at === null ? "" : `${at + 1} of ${view.tokens.length}${off}`;
  byId("around").replaceChildren(...(at === null ? ["no text"] : [
    element("span", { class: "past" }, signs(view.text(at - AROUND, at))),
    element("mark", {}, sign(view.character(at))),
    element("span", { class: "future" }, signs(view.text(at + 1, at + 1 + AROUND))),
  ]));
}

byId("back").addEventListener("click", () => view.choose(view.at - 1));
byId("forth").addEventListener("click", () => view.choose(view.at + 1));
document.addEventListener("keydown", (event) => event.key === "Escape" && view.stop());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);

for (const link of document.querySelectorAll("[data-module]")) {
  if (data.home) link.href = `${data.home}/blob/main/${link.dataset.module}`;
}
if (data.home) byId("home").append(": ", element("a", { href: data.home }, data.home.replace("https://", "")));
byId("said").append(...data.said.map((sentence) => element("li", {}, sentence)));

view.ask("load", { data }).then(async (loaded) => {
  if (!loaded) return;
  const { n_layers: layers, n_heads: heads, max_len: context } = data.config;
  byId("about").textContent = `${whole(loaded.parameters)} parameters, ${layers} layers of ${heads} heads, `
    + `${data.characters.length} characters, a context of ${context}.`;
  const example = data.examples[0] ?? "";
  byId("text").value = example;
  await view.typed(example);
  const blank = view.tokens.lastIndexOf(ids.get(" ")); // where a word begins there is much to choose
  if (blank > view.reading?.start) view.choose(blank);
  document.documentElement.dataset.ready = "";
});
