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

  // All places that may be faces. found: scores (A, h, w) and boxes (A, 16, h, w) for each stride.
  function decode(found, rules) {
    const boxes = [];
    for (const stride of rules.strides) {
      const { data: scores, dims: [, high, wide] } = found[`scores${stride}`], values = found[`boxes${stride}`].data;
      scores.forEach((confidence, i) => {
        if (confidence <= rules.maybe) return;
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

  // FER+'s frame around a box.
  function frame({ left, top, side, confidence }, rules) {
    const wide = rules.frame * side;
    return { left: left + (side - wide) / 2, top: top + (side - wide) / 2 + rules.below * side, side: wide, confidence };
  }

  // The face at a place of a picture, if a closer look finds it, too.
  async function lookedAt(picture, place, rules) {
    const { picture: pictures, detect } = globalThis.ferTry;
    const side = Math.max(1, Math.round(rules.closer * place.side)), scale = side / rules.close;
    const [left, top] = [place.left, place.top].map((start) => Math.round(start + (place.side - side) / 2));
    const sheet = pictures.colors(picture, { left, top, width: side, height: side }, rules.close, rules.close, Math.max(...rules.strides));
    const found = decode(await detect(sheet), rules).map((box) => ({
      left: left + box.left * scale, top: top + box.top * scale, side: box.side * scale, confidence: (box.confidence + place.confidence) / 2,
    })).filter((box) => overlap(box, place) > rules.same).sort((a, b) => b.confidence - a.confidence);
    return found.slice(0, 1).filter((box) => box.confidence > rules.sure);
  }

  // Boxes in the picture's own pixels, the surest first. quick: the first size that shows a face is enough.
  async function find(picture, quick = false) {
    const { made: { rules }, picture: pictures, detect } = globalThis.ferTry;
    const { width, height } = picture, longest = Math.max(width, height);
    const faces = [];
    let done = 0;
    for (const [number, searched] of rules.searched.entries()) {
      const scale = Math.min(rules.doubled, searched / longest);
      if (scale === done || (number === rules.searched.length - 1 && (faces.length || scale > 1))) break;
      const [wide, high] = [width, height].map((length) => Math.max(1, Math.round(length * scale)));
      const sheet = pictures.colors(picture, { left: 0, top: 0, width, height }, wide, high, Math.max(...rules.strides));
      for (const box of merge(decode(await detect(sheet), rules), rules)) {
        const place = { left: box.left / scale, top: box.top / scale, side: box.side / scale, confidence: box.confidence };
        faces.push(...await lookedAt(picture, place, rules));
      }
      done = scale;
      if (faces.some((face) => face.side > rules.portrait * longest) && number === 0) break;
      if (quick && faces.length) break;
    }
    return merge(faces, rules).map((face) => frame(face, rules));
  }

  globalThis.ferTry = { ...globalThis.ferTry, find };
})();
