// What PyTorch would do for us: sums and products of many numbers. A matrix is a Float32Array, row
// after row; single numbers have 64 bits here, so that long sums lose nothing.

export const spent = { multiplications: 0 };

// Each row of x (T, d_in) with each row of weight (d_out, d_in) -> (T, d_out). Two rows with four
// at a time: what has been fetched is used again, and no sum waits for another. The last of an odd
// number are computed twice.
export function product(x, weight, d_in) {
  const d_out = weight.length / d_in;
  const T = x.length / d_in;
  const y = new Float32Array(T * d_out);
  for (let o = 0; o < d_out; o += 4) {
    const o1 = Math.min(o + 1, d_out - 1);
    const o2 = Math.min(o + 2, d_out - 1);
    const o3 = Math.min(o + 3, d_out - 1);
    const w0 = o * d_in, w1 = o1 * d_in, w2 = o2 * d_in, w3 = o3 * d_in;
    for (let t = 0; t < T; t += 2) {
      const t1 = Math.min(t + 1, T - 1);
      const x0 = t * d_in, x1 = t1 * d_in;
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0; // of row t
      let b0 = 0, b1 = 0, b2 = 0, b3 = 0; // of the next
      for (let i = 0; i < d_in; i++) {
        const a = x[x0 + i];
        const b = x[x1 + i];
        a0 += a * weight[w0 + i];
        a1 += a * weight[w1 + i];
        a2 += a * weight[w2 + i];
        a3 += a * weight[w3 + i];
        b0 += b * weight[w0 + i];
        b1 += b * weight[w1 + i];
        b2 += b * weight[w2 + i];
        b3 += b * weight[w3 + i];
      }
      y[t * d_out + o] = a0;
      y[t * d_out + o1] = a1;
      y[t * d_out + o2] = a2;
      y[t * d_out + o3] = a3;
      y[t1 * d_out + o] = b0;
      y[t1 * d_out + o1] = b1;
      y[t1 * d_out + o2] = b2;
      y[t1 * d_out + o3] = b3;
    }
  }
  spent.multiplications += y.length * d_in;
  return y;
}

// Of n numbers of x from i on with those of y from j on.
export function dot(x, i, y, j, n) {
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, k = 0;
  for (; k + 3 < n; k += 4) {
    s0 += x[i + k] * y[j + k];
    s1 += x[i + k + 1] * y[j + k + 1];
    s2 += x[i + k + 2] * y[j + k + 2];
    s3 += x[i + k + 3] * y[j + k + 3];
  }
  for (; k < n; k++) s0 += x[i + k] * y[j + k];
  return s0 + s1 + s2 + s3;
}

export function sum(x, y) {
  return x.map((value, i) => value + y[i]);
}

// In place: scores become probabilities.
export function stable_softmax(scores) {
  let highest = -Infinity;
  for (const score of scores) highest = Math.max(highest, score);
  let total = 0;
  for (let s = 0; s < scores.length; s++) total += scores[s] = Math.exp(scores[s] - highest);
  for (let s = 0; s < scores.length; s++) scores[s] /= total;
  return scores;
}
