// Client of worker.js: each request is a promise.

const waiting = new Map();
let worker;
let requests = 0;

/** Start the worker; reject if the worker or its engine cannot be loaded. */
export function start() {
  return new Promise((resolve, reject) => {
    worker = new Worker("worker.js", { type: "module" });
    waiting.set(0, { resolve, reject });
    worker.onmessage = ({ data }) => settle(data);
    worker.onerror = () => reject(new Error("the browser could not start ONNX Runtime Web"));
  });
}

function settle({ id, answer, error }) {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(answer);
  else reject(new Error(error));
}

function request(action, fields, transferred = []) {
  const id = ++requests;
  worker.postMessage({ id, action, ...fields }, transferred);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

/** Load the network in `file`; resolves to { threads } after its first run. */
export const open = (file, preprocessing) => request("open", { file: new URL(file, location).href, preprocessing });

/** Classify a Blob or an ImageBitmap, which is closed; see worker.js for the answer. */
export const classify = (image) => request("classify", { image }, image instanceof Blob ? [] : [image]);
