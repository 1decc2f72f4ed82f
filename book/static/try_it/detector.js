// Where the faces are: the detector of `ferlib.detector`, with its rules.
(() => {
  const shared = (a, b) => {
    const across = Math.min(a.left + a.side, b.left + b.side) - Math.max(a.left, b.left);
    const down = Math.min(a.top + a.side, b.top + b.side) - Math.max(a.top, b.top);
    return Math.max(0, across) * Math.max(0, down);
  };
  const overlap = (a, b) => shared(a, b) / (a.side ** 2 + b.side ** 2 - shared(a, b));
  const within = (a, b) => shared(a, b) > 0.5 * Math.min(a.side, b.side) ** 2;

  // The mean by confidence.
  function mean(boxes, confidence) {
    const all = boxes.reduce((sum, box) => sum + box.confidence, 0);
    const of = (name) => boxes.reduce((sum, box) => sum + box.confidence * box[name], 0) / all;
    return { left: of("left"), top: of("top"), side: of("side"), confidence };
  }

  // All boxes of which the detector is sure. found: scores (A, h, w) and boxes (A, 16, h, w) for each stride.
  function decode(found, rules) {
    const boxes = [];
    for (const stride of rules.strides) {
      const { data: scores, dims: [, high, wide] } = found[`scores${stride}`], values = found[`boxes${stride}`].data;
      scores.forEach((confidence, i) => {
        if (confidence <= rules.sure) return;
        const cell = i % (high * wide), anchor = (i - cell) / (high * wide);
        const number = (n) => values[(16 * anchor + n) * high * wide + cell];
        const side = number(2), column = cell % wide, row = (cell - column) / wide;
        boxes.push({
          left: (column + 0.5) * stride + number(0) - side / 2, top: (row + 0.5) * stride + number(1) - side / 2, side, confidence,
        });
      });
    }
    return boxes;
  }

  // One box for each face, the surest first.
  function merge(boxes, rules) {
    const faces = [];
    let left = boxes.sort((a, b) => b.confidence - a.confidence);
    while (left.length) {
      const best = left[0];
      faces.push(mean(left.filter((box) => overlap(box, best) > rules.same), best.confidence));
      left = left.slice(1).filter((box) => !within(box, best));
    }
    return faces;
  }

  // FER+'s frame around a box, in a picture that was searched at `scale` of its size.
  function frame({ left, top, side, confidence }, rules, scale) {
    const wide = rules.frame * side;
    return {
      left: (left + (side - wide) / 2) / scale, top: (top + (side - wide) / 2 + rules.below * side) / scale,
      side: wide / scale, confidence,
    };
  }

  // Boxes in the picture's own pixels, the surest first.
  async function find(picture) {
    const { made: { rules }, picture: pictures, detect } = globalThis.ferTry;
    for (const longest of rules.searched) {
      const scale = Math.min(1, longest / Math.max(picture.width, picture.height));
      const sheet = pictures.colors(picture, scale, Math.max(...rules.strides));
      const faces = merge(decode(await detect(sheet), rules), rules);
      if (faces.length || scale === 1) return faces.map((face) => frame(face, rules, scale));
    }
    return [];
  }

  globalThis.ferTry = { ...globalThis.ferTry, find };
})();
