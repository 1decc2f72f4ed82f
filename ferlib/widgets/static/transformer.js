// A small transformer as torch computes it, block by block, with its attention open to be changed by hand:
// what ferlib.models.poster_v2.TokenTransformer does after the class token and the positions.

function layerNorm(x, { weight, bias }, epsilon = 1e-6) {
  const k = weight.length, out = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += k) {
    let mean = 0, square = 0;
    for (let e = 0; e < k; e += 1) mean += x[start + e] / k;
    for (let e = 0; e < k; e += 1) square += (x[start + e] - mean) ** 2 / k;
    const by = 1 / Math.sqrt(square + epsilon);
    for (let e = 0; e < k; e += 1) out[start + e] = (x[start + e] - mean) * by * weight[e] + bias[e];
  }
  return out;
}

// x times the normal distribution's cumulative probability; erf by Abramowitz and Stegun 7.1.26, right to 2e-7.
function gelu(x) {
  const z = Math.abs(x) / Math.SQRT2, t = 1 / (1 + 0.3275911 * z);
  const erf = 1 - t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * Math.exp(-z * z);
  return 0.5 * x * (1 + Math.sign(x) * erf);
}

const plus = (a, b) => a.map((v, i) => v + b[i]);

// Numbers 0 ... n - 1 in an order that is always the same: which key gets whose weight when a layer is permuted.
function permutation(n) {
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1, seed = 12345; i > 0; i -= 1) {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    const j = seed % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

const noEdits = () => ({ covered: [], layers: {}, rows: {} });

// The weights of one row after what was done by hand: tokens covered, a whole layer equal or permuted, one row's shares set.
function weightsByHand(scores, { covered, layers, rows }, layer, head, query) {
  for (const token of covered) scores[token] = -Infinity;
  let row = softmax(scores);
  const open = row.map((_, i) => i).filter((i) => !covered.includes(i));
  if (layers[layer] === "equal") row = row.map((_, i) => (covered.includes(i) ? 0 : 1 / open.length));
  if (layers[layer] === "permuted") {
    const before = row.slice(), order = permutation(open.length);
    open.forEach((i, n) => { row[i] = before[open[order[n]]]; });
  }
  const set = rows[`${layer}/${head}/${query}`];
  return set ? edited(row, row.map((_, i) => i), set) : row;
}

// Attention of all heads: query, key and value side by side in qkv (n, 3 d).
function attention(qkv, n, heads, edits, layer) {
  const d = qkv.length / n / 3, size = d / heads, scale = 1 / Math.sqrt(size);
  const out = new Float32Array(n * d), scores = new Float32Array(heads * n * n), weights = new Float32Array(heads * n * n);
  for (let head = 0; head < heads; head += 1) for (let i = 0; i < n; i += 1) {
    const row = new Array(n), from = i * 3 * d + head * size;
    for (let j = 0; j < n; j += 1) {
      let dot = 0;
      for (let e = 0, b = j * 3 * d + d + head * size; e < size; e += 1) dot += qkv[from + e] * qkv[b + e];
      row[j] = dot * scale;
    }
    scores.set(row, (head * n + i) * n);
    const shares = weightsByHand(row, edits, layer, head, i);
    weights.set(shares, (head * n + i) * n);
    for (let j = 0; j < n; j += 1) {
      const share = shares[j];
      if (share) for (let e = 0, b = j * 3 * d + 2 * d + head * size, a = i * d + head * size; e < size; e += 1) out[a + e] += share * qkv[b + e];
    }
  }
  return { out, scores, weights };
}

// Query, key and value of one head for two tokens, as they stand in qkv.
function vectorsOf({ qkv, n, heads }, head, query, key) {
  const d = qkv.length / n / 3, size = d / heads;
  const of = (token, part) => Array.from(qkv.subarray(token * 3 * d + part * d + head * size, token * 3 * d + part * d + (head + 1) * size));
  return { q: of(query, 0), k: of(key, 1), v: of(key, 2) };
}

// Tokens (n, d) to logits. Every layer's scores, weights, and query, key and value are kept.
function transform(tokens, { heads, weights, depth }, edits = noEdits()) {
  const of = (name) => ({ weight: weights[`${name}.weight`], bias: weights[`${name}.bias`] });
  const d = weights["norm.weight"].length, n = tokens.length / d, layers = [];
  let x = tokens;
  for (let layer = 0; layer < depth; layer += 1) {
    const name = `blocks.${layer}`, qkv = linear(layerNorm(x, of(`${name}.norm1`)), of(`${name}.attn.qkv`));
    const found = attention(qkv, n, heads, edits, layer);
    layers.push({ qkv, n, heads, ...found });
    x = plus(x, linear(found.out, of(`${name}.attn.proj`)));
    x = plus(x, linear(linear(layerNorm(x, of(`${name}.norm2`)), of(`${name}.mlp.fc1`)).map(gelu), of(`${name}.mlp.fc2`)));
  }
  const token = layerNorm(x.subarray(0, d), of("norm"));
  const gates = linear(linear(token, of("se_block.linear1")).map((v) => Math.max(0, v)), of("se_block.linear2"));
  const logits = linear(token.map((v, e) => v / (1 + Math.exp(-gates[e]))), of("head"));
  return { layers, logits: Array.from(logits) };
}

// How much of a layer's attention has moved: the mean over rows of half the absolute difference.
function movedIn(one, other, n) {
  let sum = 0;
  for (let i = 0; i < one.length; i += 1) sum += Math.abs(one[i] - other[i]);
  return sum / 2 / (one.length / n);
}

// A network out of the page: its tokens face by face, and its weights by name.
async function openNetwork({ tokens, weights, heads, depth, classes, colours }) {
  const names = Object.keys(weights), parts = await Promise.all([tokens, ...Object.values(weights)].map(unpack));
  const [, n, d] = tokens.shape, net = { heads, depth, weights: Object.fromEntries(names.map((name, i) => [name, parts[i + 1]])) };
  const kept = new Map(); // the last results: one as computed and one changed, for a face each
  const run = (face, edits) => {
    const key = JSON.stringify([face, edits]);
    if (!kept.has(key)) {
      if (kept.size > 3) kept.delete(kept.keys().next().value);
      kept.set(key, transform(parts[0].subarray(face * n * d, (face + 1) * n * d), net, edits));
    }
    return kept.get(key);
  };
  return { run, n, heads, depth, classes, colours };
}
