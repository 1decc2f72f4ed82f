// onnxruntime-web, the model and the face detector, loaded from this book when they are first needed: scripts, not requests, so
// that the page also works when it is opened as a file.
(() => {
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const inflate = async (text) => new Uint8Array(
    await new Response(new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());

  const script = (name, what) => new Promise((done, failed) => {
    const element = document.createElement("script");
    element.src = `${here}made/${name}`;
    element.onload = done;
    element.onerror = () => { element.remove(); failed(new Error(`${what} (${name}) is not in this copy of the book`)); };
    document.head.append(element);
  });

  let runtime = null;
  async function start() {
    await script("ort.js", "the runtime that computes");
    if (typeof WebAssembly !== "object") throw new Error("this browser does not run WebAssembly");
    const { module, wasm } = globalThis.ferTry.made.runtime;
    const ort = await import(URL.createObjectURL(new Blob([await inflate(module)], { type: "text/javascript" })));
    ort.env.wasm.numThreads = 1; // more would need a server that sends special headers
    ort.env.wasm.wasmBinary = (await inflate(wasm)).buffer;
    delete globalThis.ferTry.made.runtime; // megabytes that have been used
    return ort;
  }

  // A network of this book, opened once.
  const networks = {};
  function network(name, file, what) {
    networks[name] ||= (async () => {
      const ort = await (runtime ||= start());
      await script(file, what);
      const options = { executionProviders: ["wasm"], logSeverityLevel: 3 };
      return { ort, session: await ort.InferenceSession.create(bytes(globalThis.ferTry.made[name].file), options) };
    })();
    return networks[name];
  }

  // onnxruntime-web computes one thing at a time.
  let last = Promise.resolve();
  function inTurn(session, inputs) {
    const run = () => session.run(inputs);
    const next = last.then(run, run);
    last = next;
    return next;
  }

  // A sheet of colors -> the detector's maps.
  async function detect({ pixels, width, height }) {
    const { ort, session } = await network("detector", "face_detector.js", "the face detector");
    return inTurn(session, { picture: new ort.Tensor("uint8", Uint8Array.from(pixels), [height, width, 3]) });
  }

  // 48 x 48 grey bytes -> { probabilities (8), evidence (8 maps of 36), milliseconds }
  async function read(face) {
    const { ort, session } = await network("model", "model.js", "the model");
    const size = Math.sqrt(face.length), from = performance.now();
    const input = new ort.Tensor("float32", Float32Array.from(face, (value) => value / 255), [1, 1, size, size]);
    const found = await inTurn(session, { face: input });
    const maps = found.evidence.data, cells = maps.length / found.probabilities.data.length;
    return {
      probabilities: Array.from(found.probabilities.data),
      evidence: Array.from(found.probabilities.data, (_, i) => Array.from(maps.slice(i * cells, (i + 1) * cells))),
      milliseconds: performance.now() - from,
    };
  }

  globalThis.ferTry = { ...globalThis.ferTry, read, detect };
})();
