// The toy of chapter 4 for one more face: its edges in eight directions, and from them query, key and value.

// Gray bytes (side x side) -> 49 cells of 8: the strength of edges in 8 directions, each cell divided by its length.
function edgeCells(gray, side) {
  const wide = 58, inner = 56, x = enlarge(Float64Array.from(gray, (v) => v / 255), side, side, wide, wide), found = new Float32Array(49 * 8);
  for (let i = 0; i < inner; i += 1) for (let j = 0; j < inner; j += 1) {
    const at = (i + 1) * wide + j + 1, across = x[at + 1] - x[at - 1], down = x[at + wide] - x[at - wide];
    const strength = Math.hypot(across, down), angle = Math.atan2(down, across), cell = Math.floor(i / 8) * 7 + Math.floor(j / 8);
    for (let d = 0; d < 8; d += 1) found[cell * 8 + d] += strength * Math.max(0, Math.cos(angle - (d * Math.PI) / 4)) ** 2 / 64;
  }
  for (let cell = 0; cell < 49; cell += 1) {
    const part = found.subarray(cell * 8, cell * 8 + 8), length = Math.hypot(...part) + 0.05;
    part.forEach((v, d) => { part[d] = v / length; });
  }
  return found;
}

// {query, key: (classes, 49), value: (classes)} of one face, by the toy's three layers.
function toyOf(gray, side, layers) {
  const cells = edgeCells(gray, side), value = linear(cells, layers.value), classes = value.length;
  const maps = (layer) => { // (49, classes) -> (classes, 49)
    const rows = linear(cells, layer);
    return Float32Array.from(rows, (_, n) => rows[(n % 49) * classes + Math.floor(n / 49)]);
  };
  return { query: maps(layers.query), key: maps(layers.key), value };
}

async function openToy(packed) {
  const names = Object.keys(packed);
  const parts = await Promise.all(names.map(async (name) => ({ weight: await unpack(packed[name][0]), bias: await unpack(packed[name][1]) })));
  return Object.fromEntries(names.map((name, i) => [name, parts[i]]));
}
