// The arithmetic of class batch attention, without a page: what ferlib.models.class_batch_attention computes.

const STEPS = ["query times key", "scaled score", "softmax along the row", "times value", "added up"];

// Products of one image's query map with the key maps of the members, for one class: q[i, c] . k[j, c].
function productsOf({ query, key, width, classes }, members, image, c) {
  const start = (which) => (which * classes + c) * width;
  return members.map((other) => {
    let dot = 0;
    for (let e = 0; e < width; e += 1) dot += query[start(image) + e] * key[start(other) + e];
    return dot;
  });
}

// The row of attention weights of one image for one class; `edits` may replace it, see `edited`.
function weightsOf(net, members, image, c, scale, edits = null) {
  const row = softmax(productsOf(net, members, image, c).map((dot) => scale * dot));
  return edits ? edited(row, members, edits[c]) : row;
}

// A row with some of its weights set by hand ({face: weight}), the others scaled so that the row sums to one.
function edited(row, members, set) {
  if (!set) return row;
  const fixed = members.map((who) => set[who]), given = fixed.map((v) => v !== undefined);
  const wanted = fixed.reduce((sum, v) => sum + (v ?? 0), 0), rest = row.reduce((sum, v, j) => sum + (given[j] ? 0 : v), 0);
  if (rest === 0 || wanted >= 1) return fixed.map((v) => (wanted > 0 ? (v ?? 0) / wanted : 1 / row.length));
  return row.map((v, j) => (given[j] ? fixed[j] : v * (1 - wanted) / rest));
}

// Class scores of one image: alone (its own), from the batch (CBA), and both (BT = CBA + own).
function scoresOf(net, members, image, scale, edits = null) {
  const at = (which, c) => net.value[which * net.classes + c];
  const own = Array.from({ length: net.classes }, (_, c) => at(image, c));
  const cba = own.map((_, c) => weightsOf(net, members, image, c, scale, edits)
    .reduce((sum, weight, j) => sum + weight * at(members[j], c), 0));
  return { alone: own, cba, bt: own.map((v, c) => v + cba[c]) };
}

// Half the absolute difference of two rows: the share of attention that has moved.
const moved = (one, other) => one.reduce((sum, v, j) => sum + Math.abs(v - other[j]), 0) / 2;

// Rows (n, k) times a weight (m, k), plus a bias (m): (n, m), all flat.
function linear(x, { weight, bias }) {
  const m = bias.length, k = weight.length / m, n = x.length / k, out = new Float32Array(n * m);
  for (let i = 0; i < n; i += 1) for (let j = 0; j < m; j += 1) {
    let sum = bias[j];
    for (let e = 0, a = i * k, b = j * k; e < k; e += 1, a += 1, b += 1) sum += x[a] * weight[b];
    out[i * m + j] = sum;
  }
  return out;
}
