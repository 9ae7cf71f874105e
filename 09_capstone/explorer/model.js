// The whole language model once more, in a language without tensors: each loop that PyTorch runs
// for us is written out. Names, shapes and their order are those of modules 01 to 05.
//
// A tensor is a Float32Array, row after row. B is 1 and left out; T positions are new, S are there
// in all. d_model is the width of the residual stream, d_head that of one head.

import { dot, product, spent, stable_softmax, sum } from "./arithmetic.js";

export const NOTHING = { heads: [], mlps: [] };

export class TinyTransformerLM {
  constructor(config, weights) {
    config = { ...config, d_head: config.d_model / config.n_heads };
    this.config = config;
    this.embedding = new TransformerEmbedding(config, weights);
    this.blocks = [];
    for (let layer = 0; layer < config.n_layers; layer++) {
      this.blocks.push(new TransformerBlock(config, weights, layer));
    }
    this.ln_f = normOf(config, weights, "ln_f");
    const head = config.tie_weights ? "embedding.token" : "head";
    this.head = new Linear(weights, head, config.d_model);
    const rope = config.positions === "rope";
    this.rotation = rope ? rotary_table(config.max_len, config.d_head) : null;
  }

  // tokens (T), less those that the cache has read -> logits (T - cache.length, vocab_size).
  // `off` names heads ([layer, head]) and feed-forwards (layer) that add nothing, and `watch` is
  // told what passes by: (what, layer, numbers).
  forward(tokens, cache = new KVCache(this.config), off = NOTHING, watch = () => {}) {
    let x = this.embedding.forward(tokens, cache.length); // (T, d_model)
    watch("stream", 0, x);
    this.blocks.forEach((block, layer) => {
      x = block.forward(x, this.rotation, cache, layer, off, watch);
      watch("stream", layer + 1, x);
    });
    cache.length = tokens.length;
    return this.head.forward(this.ln_f.forward(x));
  }
}

class TransformerEmbedding {
  constructor(config, weights) {
    this.config = config;
    this.token = weights["embedding.token.weight"];
    this.position = weights["embedding.position.weight"];
    if (config.positions === "sinusoidal") {
      this.position = sinusoidal_positions(config.max_len, config.d_model);
    }
    this.share = weights["shift.share"];
    this.tables = config.ngrams ? [0, 1, 2].map((n) => weights[`ngrams.tables.${n}.weight`]) : [];
  }

  // tokens (T) -> (T - start, d_model)
  forward(tokens, start) {
    const { d_model } = this.config;
    const x = new Float32Array((tokens.length - start) * d_model);
    for (let t = start; t < tokens.length; t++) {
      const row = x.subarray((t - start) * d_model, (t - start + 1) * d_model);
      this.add(tokens, t, row);
      if (this.share && t > 0) {
        const before = new Float32Array(d_model);
        this.add(tokens, t - 1, before);
        for (let i = 0; i < d_model; i++) row[i] += this.share[i] * before[i];
      }
      this.addNGrams(tokens, t, row);
    }
    return x;
  }

  // Adds to x the token at position t, and that it stands there.
  add(tokens, t, x) {
    const { d_model } = this.config;
    for (let i = 0; i < d_model; i++) {
      x[i] += this.token[tokens[t] * d_model + i];
      if (this.position) x[i] += this.position[t * d_model + i];
    }
  }

  // Adds to x what is known of the last two, three and four tokens; before the first stands 0.
  addNGrams(tokens, t, x) {
    const { d_model, vocab_size, ngrams } = this.config;
    let number = tokens[t];
    this.tables.forEach((table, n) => {
      const before = tokens[t - n - 1] ?? 0;
      number = (number * vocab_size + before) % ngrams; // the remainder at once: it stays exact
      for (let i = 0; i < d_model; i++) x[i] += 3 * table[number * d_model + i];
    });
  }
}

class TransformerBlock {
  constructor(config, weights, layer) {
    const name = `blocks.${layer}`;
    this.ln_1 = normOf(config, weights, `${name}.ln_1`);
    this.attention = new MultiHeadAttention(config, weights, `${name}.attention`);
    this.ln_2 = normOf(config, weights, `${name}.ln_2`);
    this.feed_forward = new FeedForward(config, weights, `${name}.feed_forward`);
  }

  // (T, d_model) -> (T, d_model)
  forward(x, rotation, cache, layer, off, watch) {
    let added = this.ln_1.forward(x);
    added = this.attention.forward(added, rotation, cache, layer, off.heads, watch);
    watch("attention", layer, added);
    x = sum(x, added);
    added = this.feed_forward.forward(this.ln_2.forward(x));
    if (off.mlps.includes(layer)) added.fill(0);
    watch("feed_forward", layer, added);
    return sum(x, added);
  }
}

class MultiHeadAttention {
  constructor(config, weights, name) {
    this.config = config;
    this.q_proj = new Linear(weights, `${name}.q_proj`, config.d_model);
    this.k_proj = new Linear(weights, `${name}.k_proj`, config.d_model);
    this.v_proj = new Linear(weights, `${name}.v_proj`, config.d_model);
    this.out_proj = new Linear(weights, `${name}.out_proj`, config.d_model);
  }

  // (T, d_model) -> (T, d_model). A row is its heads side by side, so nothing is split or merged.
  forward(x, rotation, cache, layer, off, watch) {
    const { d_head, qk_norm, d_model } = this.config;
    let q = this.q_proj.forward(x); // (T, n_heads, d_head)
    let k = this.k_proj.forward(x);
    const v = this.v_proj.forward(x);
    if (qk_norm) [q, k] = [q, k].map((x) => rms_norm(x, d_head, 2 ** -23)); // float32's epsilon
    if (rotation) {
      apply_rotary(q, rotation, cache.length, d_model, d_head);
      apply_rotary(k, rotation, cache.length, d_model, d_head);
    }
    const [keys, values] = cache.append(layer, k, v); // (S, n_heads, d_head)
    const [out, weights] = this.attend(q, keys, values, cache.length);
    watch("weights", layer, weights);
    for (const [, head] of off.filter(([of]) => of === layer)) {
      for (let i = head * d_head; i < out.length; i += d_model) out.fill(0, i, i + d_head);
    }
    return this.out_proj.forward(out);
  }

  // Each head averages the values by how well its query matches their keys, which end where the
  // query stands: that is the causal mask. -> out (T, n_heads, d_head), weights (n_heads, T, S)
  attend(q, keys, values, start) {
    const { d_model, d_head, n_heads } = this.config;
    const T = q.length / d_model;
    const S = start + T;
    const out = new Float32Array(q.length);
    const weights = new Float32Array(n_heads * T * S);
    for (let head = 0; head < n_heads; head++) {
      for (let t = 0; t < T; t++) {
        const length = start + t + 1;
        const row = weights.subarray((head * T + t) * S).subarray(0, length);
        const at = t * d_model + head * d_head;
        for (let s = 0; s < length; s++) {
          row[s] = dot(q, at, keys, s * d_model + head * d_head, d_head) / Math.sqrt(d_head);
        }
        stable_softmax(row);
        for (let s = 0; s < length; s++) {
          const weight = row[s];
          const value = s * d_model + head * d_head;
          for (let i = 0; i < d_head; i++) out[at + i] += weight * values[value + i];
        }
        spent.multiplications += 2 * length * d_head;
      }
    }
    return [out, weights];
  }
}

class FeedForward {
  constructor(config, weights, name) {
    this.up = new Linear(weights, `${name}.up`, config.d_model);
    this.down = new Linear(weights, `${name}.down`, config.d_ff);
    this.activation = config.activation === "relu2" ? (x) => Math.max(0, x) ** 2 : gelu;
  }

  forward(x) {
    return this.down.forward(this.up.forward(x).map(this.activation));
  }
}

class Linear {
  constructor(weights, name, d_in) {
    this.weight = weights[`${name}.weight`]; // (d_out, d_in)
    this.bias = weights[`${name}.bias`];
    this.d_in = d_in;
  }

  // (..., d_in) -> (..., d_out)
  forward(x) {
    const y = product(x, this.weight, this.d_in);
    return this.bias ? y.map((value, i) => value + this.bias[i % this.bias.length]) : y;
  }
}

function normOf(config, weights, name) {
  const weight = weights[`${name}.weight`];
  const bias = weights[`${name}.bias`];
  return config.norm === "rms" ? new RMSNorm(weight) : new LayerNorm(weight, bias);
}

class RMSNorm {
  constructor(weight) {
    this.weight = weight;
  }

  forward(x) {
    const d_model = this.weight.length;
    return rms_norm(x, d_model, 1e-5).map((value, i) => value * this.weight[i % d_model]);
  }
}

class LayerNorm {
  constructor(weight, bias) {
    this.weight = weight;
    this.bias = bias;
  }

  forward(x) {
    const d_model = this.weight.length;
    const y = new Float32Array(x.length);
    for (let row = 0; row < x.length; row += d_model) {
      let mean = 0;
      for (let i = 0; i < d_model; i++) mean += x[row + i] / d_model;
      let variance = 0;
      for (let i = 0; i < d_model; i++) variance += (x[row + i] - mean) ** 2 / d_model;
      const scale = 1 / Math.sqrt(variance + 1e-5);
      for (let i = 0; i < d_model; i++) {
        y[row + i] = (x[row + i] - mean) * scale * this.weight[i] + this.bias[i];
      }
    }
    return y;
  }
}

function rms_norm(x, width, eps) {
  const y = new Float32Array(x.length);
  for (let row = 0; row < x.length; row += width) {
    const scale = 1 / Math.sqrt(dot(x, row, x, row, width) / width + eps);
    for (let i = row; i < row + width; i++) y[i] = x[i] * scale;
  }
  return y;
}

function gelu(x) {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

// cos and sin of the angle of each pair of features at each position, (T, width / 2).
function rotary_table(T, width) {
  const cos = new Float32Array((T * width) / 2);
  const sin = new Float32Array((T * width) / 2);
  for (let t = 0, n = 0; t < T; t++) {
    for (let pair = 0; pair < width / 2; pair++, n++) {
      const angle = Math.fround(t * Math.fround(10000 ** Math.fround((-2 * pair) / width)));
      cos[n] = Math.cos(angle);
      sin[n] = Math.sin(angle);
    }
  }
  return [cos, sin];
}

function sinusoidal_positions(T, d_model) {
  const [cos, sin] = rotary_table(T, d_model);
  return new Float32Array(T * d_model).map((_, i) => (i % 2 ? cos : sin)[Math.floor(i / 2)]);
}

// In place: turns feature pair i of each head, i and i + d_head / 2, by the angle of its position.
function apply_rotary(x, [cos, sin], start, d_model, d_head) {
  const half = d_head / 2;
  for (let head = 0; head < x.length; head += d_head) {
    const t = start + Math.floor(head / d_model);
    for (let i = 0; i < half; i++) {
      const [a, b] = [x[head + i], x[head + half + i]];
      const [c, s] = [cos[t * half + i], sin[t * half + i]];
      x[head + i] = a * c - b * s;
      x[head + half + i] = a * s + b * c;
    }
  }
}

export class KVCache {
  constructor({ n_layers, max_len, d_model }) {
    const room = () => Array.from({ length: n_layers }, () => new Float32Array(max_len * d_model));
    this.keys = room(); // of each layer (S, n_heads, d_head)
    this.values = room();
    this.width = d_model;
    this.length = 0;
  }

  append(layer, k, v) {
    this.keys[layer].set(k, this.length * this.width);
    this.values[layer].set(v, this.length * this.width);
    return [this.keys[layer], this.values[layer]];
  }
}
