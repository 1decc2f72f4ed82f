// The model and onnxruntime-web, loaded from this book when they are first needed: scripts, not requests, so
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

  let session = null;
  async function start() {
    await Promise.all([script("ort.js", "the runtime that computes"), script("model.js", "the model")]);
    if (typeof WebAssembly !== "object") throw new Error("this browser does not run WebAssembly");
    const { runtime, model } = globalThis.ferTry.made;
    const module = URL.createObjectURL(new Blob([await inflate(runtime.module)], { type: "text/javascript" }));
    const ort = await import(module);
    ort.env.wasm.numThreads = 1; // more would need a server that sends special headers
    ort.env.wasm.wasmBinary = (await inflate(runtime.wasm)).buffer;
    const options = { executionProviders: ["wasm"], logSeverityLevel: 3 };
    const made = await ort.InferenceSession.create(bytes(model.file), options);
    delete globalThis.ferTry.made.runtime; // megabytes that have been used
    return { ort, made };
  }

  // 48 x 48 grey bytes -> { probabilities (8), evidence (8 maps of 36), milliseconds }
  async function read(face) {
    session ||= start();
    const { ort, made } = await session;
    const size = Math.sqrt(face.length), from = performance.now();
    const input = new ort.Tensor("float32", Float32Array.from(face, (value) => value / 255), [1, 1, size, size]);
    const found = await made.run({ face: input });
    const maps = found.evidence.data, cells = maps.length / found.probabilities.data.length;
    return {
      probabilities: Array.from(found.probabilities.data),
      evidence: Array.from(found.probabilities.data, (_, i) => Array.from(maps.slice(i * cells, (i + 1) * cells))),
      milliseconds: performance.now() - from,
    };
  }

  globalThis.ferTry = { ...globalThis.ferTry, read };
})();
