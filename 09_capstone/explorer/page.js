// The page: what all panels look at, and the worker that does the arithmetic.

import { attentionPanel } from "./attention.js";
import { awayPanel } from "./away.js";
import { cachePanel } from "./cache.js";
import { depthPanel } from "./depth.js";
import { learnedPanel } from "./learned.js";
import { NOTHING } from "./model.js";
import { nextPanel } from "./next.js";
import { byId, element, sign, softmax, whole } from "./show.js";
import { encode, textPanel } from "./text.js";

const COSTS = 200; // drawn characters whose costs are kept

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
  writing: null, trying: false,

  logits(at, reading = view.reading) {
    const row = at - reading.start;
    return reading.logits.subarray(row * data.characters.length, (row + 1) * data.characters.length);
  },
  chances: (at, reading) => softmax(view.logits(at, reading)),
  character: (at) => data.characters[view.tokens[at]],
  surprise(at, reading = view.reading) {
    return at > reading.start ? -Math.log(view.chances(at - 1, reading)[view.tokens[at]]) : null;
  },
  loss(reading) {
    let sum = 0;
    for (let at = reading.start + 1; at < view.tokens.length; at++) sum += view.surprise(at, reading);
    return view.tokens.length - reading.start > 1 ? sum / (view.tokens.length - reading.start - 1) : null;
  },
  before(at, most) { // the characters up to a position, as signs
    const from = Math.max(0, at + 1 - most);
    return [from ? "…" : "", element("span", { class: "signs" }, ...view.tokens.slice(from, at + 1).map((id) => sign(data.characters[id])))];
  },
  isOff: (layer, head) => head === null ? view.off.mlps.includes(layer) : view.off.heads.some(([l, h]) => l === layer && h === head),

  // One thing at a time writes or tries: whoever begins gets a sign that is on until it is stopped.
  begin: () => (view.writing = {}),
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
    return view.read({ tokens: [...view.tokens, drawn.token], drawn: [...view.drawn, drawn], at: view.tokens.length }, (reading) => {
      const { ms, multiplications } = kept ? reading : drawn;
      view.costs = [...view.costs, { kept, ms, multiplications }].slice(-COSTS);
    });
  },
  takeBack() {
    const text = view.tokens.slice(0, view.tokens.length - view.drawn.length).map((id) => data.characters[id]).join("");
    byId("text").value = text;
    view.typed(text);
  },
  forget() {
    view.drawn = [];
    update();
  },
  choose(at) {
    view.at = at;
    update();
    look();
  },
  toggle(layer, head) {
    const { heads, mlps } = (view.pending ?? view).off;
    const without = (list, same) => list.some(same) ? list.filter((part) => !same(part)) : null;
    view.read({ off: head === null
      ? { heads, mlps: without(mlps, (l) => l === layer) ?? [...mlps, layer] }
      : { heads: without(heads, ([l, h]) => l === layer && h === head) ?? [...heads, [layer, head]], mlps } });
  },
  async use(snapshot) {
    view.stop();
    if (await view.ask("use", { snapshot })) await view.read({ snapshot });
  },

  // Read the text again after a change. Until the answer comes all panels show what was before, and
  // a change that comes meanwhile is added to those that wait.
  async read(change = {}, count = () => {}) {
    const next = view.pending = { tokens: view.tokens, off: view.off, at: view.at, ...view.pending, ...change };
    const { tokens, off } = next;
    if (!tokens.length) {
      Object.assign(view, next, { whole: null, reading: null, inside: null, at: null, pending: null });
      return update();
    }
    const everything = await view.ask("read", { tokens, off: NOTHING });
    const some = everything && (off.heads.length || off.mlps.length) ? await view.ask("read", { tokens, off }) : everything;
    if (!some || view.pending !== next) return;
    Object.assign(view, next, { whole: everything, reading: some, at: Math.max(next.at, some.start), pending: null });
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
const panels = [textPanel, nextPanel, attentionPanel, awayPanel, cachePanel, learnedPanel].map((panel) => panel(view));

function update() {
  around();
  for (const panel of panels) panel();
  if (!view.reading) depth();
}

// The line that stays in sight: the chosen position and what stands around it.
function around() {
  byId("back").disabled = !view.reading || view.at <= view.reading.start;
  byId("forth").disabled = !view.reading || view.at >= view.tokens.length - 1;
  const { at, tokens } = view;
  const off = view.off.heads.length + view.off.mlps.length;
  byId("count").textContent = at === null ? "" : `${at + 1} of ${tokens.length}` + (off ? `, ${off} off` : "");
  const signs = (from, to) => element("span", { class: "signs" }, ...tokens.slice(Math.max(0, from), to).map((id) => sign(data.characters[id])));
  byId("around").replaceChildren(...(at === null ? ["no text"] : [
    element("span", { class: "past" }, signs(at - 40, at)),
    element("mark", {}, sign(view.character(at))),
    element("span", { class: "future" }, signs(at + 1, at + 41)),
  ]));
}

byId("back").addEventListener("click", () => view.choose(view.at - 1));
byId("forth").addEventListener("click", () => view.choose(view.at + 1));
document.addEventListener("keydown", (event) => event.key === "Escape" && view.stop());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);

for (const link of document.querySelectorAll("[data-module]")) {
  if (data.home) link.href = `${data.home}/blob/main/${link.dataset.module}`;
}
if (data.home) byId("home").replaceChildren(": ", element("a", { href: data.home }, data.home.replace(/^https:\/\//, "")));
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
  if (blank > 0) view.choose(blank);
  document.documentElement.dataset.ready = "";
});
