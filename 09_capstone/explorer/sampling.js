// From scores to a choice, as module 07 has it. Logits and probabilities are of one position,
// (vocab_size).

import { stable_softmax } from "./arithmetic.js";

// Where the window that predicts the token at `end` starts: moved on by half a context.
export function window_start(end, max_len) {
  const half = Math.max(1, Math.floor(max_len / 2));
  return Math.max(0, Math.ceil((end - max_len) / half) * half);
}

// What the rules leave of the distribution, the temperature first, then top-k, then top-p of what
// is left. -> probabilities, and for each token the rule that cut it, or "".
export function applyRules(logits, { temperature = 1, top_k = null, top_p = null }) {
  const cut = Array(logits.length).fill("");
  if (temperature === 0) {
    const token = greedy(logits);
    cut.fill("temperature").fill("", token, token + 1);
    return { probabilities: Float32Array.from(cut, (rule) => (rule ? 0 : 1)), cut };
  }
  let scores = apply_temperature(logits, temperature);
  if (top_k !== null) scores = without(top_k_filter(scores, top_k), scores, cut, "top-k");
  if (top_p !== null) scores = without(top_p_filter(scores, top_p), scores, cut, "top-p");
  return { probabilities: stable_softmax(scores), cut };
}

// The token at `chance`, a number from 0 to 1, where the probabilities lie end to end.
export function drawn_at(chance, probabilities) {
  let below = 0;
  for (let token = 0; token < probabilities.length; token++) {
    below += probabilities[token];
    if (chance < below) return token;
  }
  return greedy(probabilities); // the sum was rounded below 1
}

export function greedy(logits) {
  return logits.indexOf(Math.max(...logits));
}

export function apply_temperature(logits, temperature) {
  const highest = Math.max(...logits); // softmax ignores a shift, and what is divided may overflow
  return logits.map((logit) => (logit - highest) / temperature);
}

// Whether each token stays: the k highest scores, and what ties with the k-th.
export function top_k_filter(logits, k) {
  const kth = logits.slice().sort().at(-Math.min(k, logits.length));
  return Array.from(logits, (logit) => logit >= kth);
}

// Whether each token stays: the fewest likeliest that together have probability p.
export function top_p_filter(logits, p) {
  const probabilities = stable_softmax(logits.slice());
  const order = Array.from(logits.keys()).sort((a, b) => probabilities[b] - probabilities[a]);
  const stays = Array(logits.length).fill(p === 1);
  let before = 0; // the mass of all likelier tokens
  for (const token of order) {
    if (before < p) stays[token] = true;
    before += probabilities[token];
  }
  return stays;
}

function without(stays, logits, cut, rule) {
  return logits.map((logit, token) => {
    if (!stays[token]) cut[token] ||= rule;
    return stays[token] ? logit : -Infinity;
  });
}

// A number from 0 to 1 for each step of a seed, the same on every machine (mulberry32).
export function uniform(seed, step) {
  let a = (Math.imul(seed, 0x9e3779b9) + Math.imul(step + 1, 0x6d2b79f5)) | 0;
  a = Math.imul(a ^ (a >>> 15), a | 1);
  a ^= a + Math.imul(a ^ (a >>> 7), a | 61);
  return ((a ^ (a >>> 14)) >>> 0) / 2 ** 32;
}
