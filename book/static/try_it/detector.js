// Where the faces are: scikit-image's frontal-face cascade (multi-block local binary patterns), its numbers in
// made/cascade.js, and the grouping of `ferlib.predict`.
(() => {
  const round = Math.fround; // the cascade computes in single precision

  // Sums of all that is above and to the left, with a row and a column of zeros in front.
  function integral({ grey, width, height }) {
    const wide = width + 1, sums = new Float32Array(wide * (height + 1)), above = new Float64Array(width);
    for (let y = 0; y < height; y += 1) {
      let row = 0;
      for (let x = 0; x < width; x += 1) {
        row += grey[y * width + x];
        above[x] += row;
        sums[(y + 1) * wide + x + 1] = above[x];
      }
    }
    return { sums, wide };
  }

  // The sum of a block whose corner is at `at`; `down` is its height in places of the array.
  const block = (sums, at, w, down) => round(round(round(sums[at + down + w] + sums[at]) - sums[at + w]) - sums[at + down]);

  // Nine blocks in three rows: one bit for each around the middle one, clockwise from the top left.
  function pattern(sums, at, w, down) {
    const middle = block(sums, at + down + w, w, down), below = at + 2 * down;
    return (block(sums, at, w, down) >= middle) << 7 | (block(sums, at + w, w, down) >= middle) << 6
      | (block(sums, at + 2 * w, w, down) >= middle) << 5 | (block(sums, at + down + 2 * w, w, down) >= middle) << 4
      | (block(sums, below + 2 * w, w, down) >= middle) << 3 | (block(sums, below + w, w, down) >= middle) << 2
      | (block(sums, below, w, down) >= middle) << 1 | (block(sums, at + down, w, down) >= middle);
  }

  function accepts(stages, sums, place) {
    for (let i = 0; i < stages.length; i += 1) {
      const { threshold, stumps } = stages[i];
      let points = 0;
      for (let j = 0; j < stumps.length; j += 1) {
        const one = stumps[j], code = pattern(sums, place + one.at, one.w, one.down);
        points = round(points + ((one.table[code >> 5] >>> (code & 31)) & 1 ? one.yes : one.no));
      }
      if (points < threshold - 1e-5) return false;
    }
    return true;
  }

  // The cascade at one scale, its places counted in the array of sums.
  const scaled = ({ stages, features }, scale, wide) => stages.map(({ threshold, stumps }) => ({
    threshold,
    stumps: stumps.map(([feature, table, yes, no]) => {
      const [y, x, w, h] = features[feature].map((value) => Math.trunc(round(value * scale)));
      return { at: y * wide + x, w, down: h * wide, table, yes, no };
    }),
  }));

  function windows(image, cascade, rules) {
    const { sums, wide } = integral(image), found = [], base = round(rules.scale);
    const last = Math.log(Math.min(image.width, image.height) / cascade.side) / Math.log(base);
    for (let power = 0; power < last; power += 1) {
      const scale = round(base ** power), step = Math.round(scale), side = Math.trunc(round(cascade.side * scale));
      const stages = scaled(cascade, scale, wide);
      for (let top = 0; top < image.height - side; top += step) {
        for (let left = 0; left < image.width - side; left += step) {
          if (accepts(stages, sums, top * wide + left)) found.push({ left, top, side });
        }
      }
    }
    return found.sort((a, b) => a.side - b.side || a.top - b.top || a.left - b.left);
  }

  const shared = (a, b) => {
    const across = Math.min(a.left + a.side, b.left + b.side) - Math.max(a.left, b.left);
    const down = Math.min(a.top + a.side, b.top + b.side) - Math.max(a.top, b.top);
    return Math.max(0, across) * Math.max(0, down);
  };
  const overlap = (a, b) => shared(a, b) / (a.side ** 2 + b.side ** 2 - shared(a, b));
  const mean = (boxes) => {
    const of = (name) => boxes.reduce((sum, box) => sum + box[name], 0) / boxes.length;
    return { left: of("left"), top: of("top"), side: of("side") };
  };

  function group(boxes, rules) {
    const groups = [];
    for (const box of boxes) {
      let near = null, most = rules.same;
      for (const some of groups) {
        const share = overlap(some.mean, box);
        if (share > most) [near, most] = [some, share];
      }
      if (near) near.boxes.push(box);
      else groups.push(near = { boxes: [box] });
      near.mean = mean(near.boxes);
    }
    const kept = [];
    for (const some of groups.sort((a, b) => b.boxes.length - a.boxes.length)) {
      const inside = kept.some((k) => shared(k, some.mean) / Math.min(k.side, some.mean.side) ** 2 > 0.5);
      if (some.boxes.length >= rules.hits && !inside) kept.push(some.mean);
    }
    return kept;
  }

  // Boxes in the picture's own pixels, the surest first.
  function find(picture) {
    const { cascade, rules } = globalThis.ferTry.made;
    const image = globalThis.ferTry.picture.small(picture, rules.side);
    if (Math.min(image.width, image.height) <= cascade.side) return [];
    const { shrink } = image;
    return group(windows(image, cascade, rules), rules)
      .map((box) => ({ left: box.left / shrink, top: box.top / shrink, side: box.side / shrink }));
  }

  globalThis.ferTry = { ...globalThis.ferTry, find };
})();
