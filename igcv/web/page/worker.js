// Worker for decoding and inference, which keeps the page responsive. Answers come in the order of the requests:
// { id, action, ... } -> { id, answer } or { id, error }.

import * as ort from "./ort/ort.wasm.min.mjs";
import { decoded, readable } from "./pixels.js";
import { centerSquare } from "./resize.js";

// Threads need shared memory, which browsers provide only to pages with cross-origin isolation headers.
const THREADS = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
ort.env.wasm.numThreads = THREADS;
ort.env.logLevel = "error";

let preprocessing;
let session;

/** Open a network and run it once: the first run allocates memory and is slower. */
async function open(request) {
  preprocessing = request.preprocessing;
  const opened = await ort.InferenceSession.create(request.file, { executionProviders: ["wasm"] });
  const before = session;
  session = opened;
  await run(new Uint8Array(preprocessing.input_size ** 2 * 3));
  await before?.release();
  return { threads: THREADS };
}

/** Classify a Blob or an ImageBitmap; return probabilities, the network's input pixels, and milliseconds. */
async function classify({ image }) {
  const bitmap = image instanceof Blob ? await decoded(image) : image;
  const start = performance.now();
  const pixels = centerSquare(readable(bitmap), preprocessing);
  bitmap.close();
  const resized = performance.now();
  const probabilities = softmax(await run(pixels));
  return { probabilities, pixels, resizeMs: resized - start, networkMs: performance.now() - resized };
}

async function run(pixels) {
  const side = preprocessing.input_size;
  const images = new ort.Tensor("uint8", pixels, [1, side, side, 3]);
  const { logits } = await session.run({ images });
  return logits.data;
}

function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const powers = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

const ACTIONS = { open, classify };
let last = Promise.resolve();

async function answer({ id, action, ...request }) {
  try {
    postMessage({ id, answer: await ACTIONS[action](request) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
}

self.onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};
postMessage({ id: 0, answer: null }); // ready: all imports are loaded
