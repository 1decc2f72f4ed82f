// Pictures and pixels: decode, make grey, cut out a face as FER+ has it. The arithmetic is Pillow's, so that
// `ferlib predict` and this page see the same 48 x 48 numbers.
(() => {
  const LARGEST = 40e6; // pixels: the limit that `ferlib predict` has
  const canvas = () => document.createElement("canvas");

  // A file, a data address or a video frame -> { source, width, height }; throws a sentence for the reader.
  async function open(file) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    } catch {
      throw new Error(`${file.name || "This"} is not a picture that this browser can read. PNG, JPEG and WebP work.`);
    }
    if (bitmap.width * bitmap.height > LARGEST) throw new Error("This picture has more than 40 million pixels. Make it smaller first.");
    return { source: bitmap, width: bitmap.width, height: bitmap.height };
  }

  async function fromAddress(address) {
    const [head, data] = address.split(",");
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    return open(new Blob([bytes], { type: head.slice(5).split(";")[0] }));
  }

  // Grey values 0 ... 255 of a rectangle that lies inside the picture.
  function pixels(picture, left, top, width, height) {
    const page = canvas();
    page.width = width;
    page.height = height;
    const pen = page.getContext("2d", { willReadFrequently: true });
    pen.fillStyle = "#fff"; // what is transparent is white, as a picture viewer shows it
    pen.fillRect(0, 0, page.width, page.height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(picture.source, left, top, width, height, 0, 0, page.width, page.height);
    const { data } = pen.getImageData(0, 0, page.width, page.height);
    const grey = new Uint8Array(page.width * page.height);
    for (let i = 0; i < grey.length; i += 1) {
      grey[i] = (data[4 * i] * 19595 + data[4 * i + 1] * 38470 + data[4 * i + 2] * 7471 + 32768) >> 16;
    }
    return { grey, width: page.width, height: page.height };
  }

  const cubic = (x) => { // Keys' kernel with a = -1/2
    x = Math.abs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  };
  const byte = (value) => Math.min(255, Math.max(0, Math.floor(value + 0.5)));

  // Which pixels of a line make each new pixel, and how much: wider than two pixels where it shrinks.
  function weights(size, from, length, wanted) {
    const scale = length / wanted, wide = Math.max(1, scale);
    return Array.from({ length: wanted }, (_, i) => {
      const middle = from + (i + 0.5) * scale;
      const first = Math.max(0, Math.trunc(middle - 2 * wide + 0.5)), end = Math.min(size, Math.trunc(middle + 2 * wide + 0.5));
      const shares = Array.from({ length: end - first }, (__, j) => cubic((first + j - middle + 0.5) / wide));
      const sum = shares.reduce((a, b) => a + b, 0);
      return { first, shares: shares.map((share) => share / sum) };
    });
  }

  // Bicubic, antialiased where it shrinks: across first, then down, rounded after each.
  function resize({ grey, width, height }, wide, high, box = [0, 0, width, height]) {
    const across = weights(width, box[0], box[2], wide), down = weights(height, box[1], box[3], high);
    const middle = new Uint8Array(wide * height), out = new Uint8Array(wide * high);
    for (let y = 0; y < height; y += 1) {
      across.forEach(({ first, shares }, x) => {
        let sum = 0;
        for (let j = 0; j < shares.length; j += 1) sum += shares[j] * grey[y * width + first + j];
        middle[y * wide + x] = byte(sum);
      });
    }
    down.forEach(({ first, shares }, y) => {
      for (let x = 0; x < wide; x += 1) {
        let sum = 0;
        for (let j = 0; j < shares.length; j += 1) sum += shares[j] * middle[(first + j) * wide + x];
        out[y * wide + x] = byte(sum);
      }
    });
    return { grey: out, width: wide, height: high };
  }

  // The face in a box, size x size; outside the picture its edge is continued.
  function frame(picture, box, size) {
    const left = Math.floor(box.left), top = Math.floor(box.top);
    const width = Math.ceil(box.left + box.side) - left, height = Math.ceil(box.top + box.side) - top;
    const clip = (value, end) => Math.min(end - 1, Math.max(0, value));
    const x0 = clip(left, picture.width), y0 = clip(top, picture.height);
    const x1 = clip(left + width - 1, picture.width), y1 = clip(top + height - 1, picture.height);
    const inside = pixels(picture, x0, y0, x1 - x0 + 1, y1 - y0 + 1);
    const grey = new Uint8Array(width * height);
    for (let y = 0; y < height; y += 1) {
      const row = (Math.min(y1, Math.max(y0, top + y)) - y0) * inside.width;
      for (let x = 0; x < width; x += 1) grey[y * width + x] = inside.grey[row + Math.min(x1, Math.max(x0, left + x)) - x0];
    }
    return resize({ grey, width, height }, size, size, [box.left - left, box.top - top, box.side, box.side]).grey;
  }

  // A part of the picture, black where it sticks out, at a size: red, green and blue, on a black sheet with sides
  // that are multiples of `step`.
  function colors(picture, { left, top, width, height }, wide, high, step) {
    const page = canvas();
    [page.width, page.height] = [wide, high].map((length) => Math.ceil(length / step) * step);
    const pen = page.getContext("2d", { willReadFrequently: true });
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, page.width, page.height);
    pen.beginPath();
    pen.rect(0, 0, wide, high);
    pen.clip();
    pen.setTransform(wide / width, 0, 0, high / height, (-left * wide) / width, (-top * high) / height);
    pen.fillStyle = "#fff"; // under what is transparent
    pen.fillRect(0, 0, picture.width, picture.height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(picture.source, 0, 0);
    const { data } = pen.getImageData(0, 0, page.width, page.height);
    return { pixels: data.filter((_, i) => i % 4 < 3), width: page.width, height: page.height };
  }

  globalThis.ferTry = { ...globalThis.ferTry, picture: { open, fromAddress, frame, colors } };
})();
