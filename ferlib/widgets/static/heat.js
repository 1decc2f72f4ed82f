// Maps out of bytes, and what they are worth: the inverse of ferlib.widgets.codec, and attention_score.

// The share that stands in one place of a row: as computed, or as its byte keeps it (shares are squares of the code).
function shareAt(block, row, column) {
  if (block.values) return block.values[row * block.shape.at(-1) + column];
  const code = block.codes[row * block.shape.at(-1) + column];
  return block.top[row] * (code === 255 ? 1 : (code / 254.49) ** 2);
}

async function openBlock(packed) {
  if (!packed) return null;
  const [codes, top] = await Promise.all([packed.codes, packed.top].map(unpack));
  return { ...packed, codes, top, shape: packed.codes.shape };
}

// A source of the page with its bytes opened: plain maps (size), recorded layers of {softmax, rollout}, or a network
// whose layers are computed here, for one face at a time.
async function openSource(source) {
  if (source.size) return { ...source, map: await openBlock(source) };
  if (source.network) {
    const network = await openNetwork(source.network), side = source.network.side;
    const layers = Array.from({ length: network.depth }, (_, i) => ({ name: `block ${i + 1}` }));
    const compute = (face, edits) => network.run(face, edits).layers.forEach(({ scores, weights, heads, n }, i) => {
      const block = { asked: side, side, shape: [1, heads, n, n] };
      layers[i].softmax = { ...block, values: weights };
      layers[i].scores = { ...block, values: scores };
    });
    compute(0, noEdits());
    return { ...source, network, layers, compute, heads: layers.map(() => network.heads) };
  }
  const layers = await Promise.all(source.layers.map(async (layer) => ({ name: layer.name,
    softmax: await openBlock(layer.softmax), rollout: await openBlock(layer.rollout) })));
  return { ...source, layers, heads: layers.map((layer) => layer.softmax.shape[1]) };
}

// Which rows of a block are averaged: the class token's, those of one place, or of all patches.
function rowsOf(block, { prefix, levels }, asks, query, level) {
  if (block.shape[2] === 1 || (asks === "token" && prefix)) return [0];
  const side = block.asked, cells = side * side, rows = [];
  const [x, y] = query.map((v) => clamp(Math.floor(v * side), 0, side - 1));
  for (let l = level ?? 0; l < (level == null ? Math.max(1, levels.length) : level + 1); l += 1) {
    if (asks === "patch") rows.push(prefix + l * cells + y * side + x);
    else for (let cell = 0; cell < cells; cell += 1) rows.push(prefix + l * cells + cell);
  }
  return rows;
}

// The map a source shows for one face: {values, width, height, token: what the class token is given}.
// Scores of a recorded layer are the logarithms of its shares: the same up to one constant a row.
function mapOf(source, face, view, asks, query) {
  if (source.size) {
    const [height, width] = source.size;
    return { values: Float64Array.from({ length: width * height }, (_, i) => shareAt(source.map, face, i)), width, height };
  }
  const layer = source.layers[view.layer], before = view.step === "scores", real = before && layer.scores;
  const block = real || layer[view.step] || layer.softmax, [, heads, queries] = block.shape;
  const { prefix, levels } = source, cells = block.side ** 2, values = new Float64Array(cells), seen = new Float64Array(cells);
  const rows = rowsOf(block, source, asks, query, view.level), at = source.network ? 0 : face;
  const [low, high] = view.level == null ? [0, Math.max(1, levels.length)] : [view.level, view.level + 1];
  let token = 0, count = 0;
  for (let head = 0; head < heads; head += 1) {
    if (view.head != null && view.head !== head && heads > 1) continue;
    for (const row of rows) {
      const place = (at * heads + head) * queries + row;
      count += 1;
      for (let i = 0; i < prefix; i += 1) token += shareAt(block, place, i);
      for (let level = low; level < high; level += 1) for (let cell = 0; cell < cells; cell += 1) {
        const value = shareAt(block, place, prefix + level * cells + cell);
        if (value > -Infinity) { values[cell] += value; seen[cell] += 1; }
      }
    }
  }
  for (let cell = 0; cell < cells; cell += 1) {
    if (real) values[cell] = seen[cell] ? values[cell] / seen[cell] : -Infinity;
    else values[cell] = before ? Math.log(values[cell] / count) : values[cell] / count;
  }
  return { values, width: block.side, height: block.side, token: before || !prefix ? null : token / count };
}

// Pointing game, energy inside and area under the curve of a map against a region of 0 and 1.
function scoreOf({ values, width, height }, { inside, area, wide, high }) {
  const heat = enlarge(values.map((v) => Math.max(0, v)), width, height, wide, high);
  let sum = 0, most = 0, within = 0, peaks = 0, hits = 0;
  for (let i = 0; i < heat.length; i += 1) { sum += heat[i]; if (heat[i] > most) most = heat[i]; }
  if (sum === 0) { heat.fill(1); sum = heat.length; most = 1; }
  const ins = new Float32Array(area), outs = new Float32Array(heat.length - area), edge = most * (1 - 1e-6);
  for (let i = 0, n = 0, m = 0; i < heat.length; i += 1) {
    const peak = heat[i] >= edge ? 1 : 0;
    peaks += peak;
    if (inside[i]) { within += heat[i]; hits += peak; ins[n] = heat[i]; n += 1; } else { outs[m] = heat[i]; m += 1; }
  }
  return { pointing: hits / peaks, energy: within / sum, auc: aucOf(ins.sort(), outs.sort()), area: area / heat.length };
}

// The share of pairs whose inner number is larger; equal ones count half. Both sorted; NaN where there are no pairs.
function aucOf(ins, outs) {
  let won = 0, lower = 0, upto = 0;
  for (let i = 0; i < ins.length; i += 1) {
    while (lower < outs.length && outs[lower] < ins[i]) lower += 1;
    while (upto < outs.length && outs[upto] <= ins[i]) upto += 1;
    won += (lower + upto) / 2;
  }
  return won / (ins.length * outs.length);
}

// The edge of a region as the path of an SVG whose unit is a pixel of it.
function outline({ inside, wide, high }) {
  const at = (x, y) => (x >= 0 && y >= 0 && x < wide && y < high ? inside[y * wide + x] : 0);
  const runs = (count, length, differs, word) => {
    let path = "";
    for (let a = 0; a <= count; a += 1) for (let b = 0, start = -1; b <= length; b += 1) {
      const edge = b < length && differs(a, b);
      if (edge && start < 0) start = b;
      if (!edge && start >= 0) { path += word(a, start, b); start = -1; }
    }
    return path;
  };
  return runs(high, wide, (y, x) => at(x, y) !== at(x, y - 1), (y, from, to) => `M${from} ${y}H${to}`)
    + runs(wide, high, (x, y) => at(x, y) !== at(x - 1, y), (x, from, to) => `M${x} ${from}V${to}`);
}
