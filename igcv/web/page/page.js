// The page: description of the network, and controls.

import { startCamera } from "./camera.js";
import { listen, showExamples } from "./inputs.js";
import { listenForStrokes } from "./pad.js";
import { classify, open, start } from "./predict.js";
import { forgetTimes, show } from "./results.js";

const NO_INT8 =
  "No int8 network: no calibration images were available when this page was made.";

const element = (id) => document.getElementById(id);
let page; // page.json
let ready = false; // true when a network is open
let camera = null; // the running camera
let picture = null; // the last picture, classified again after a change of network

function tell(message) {
  element("message").textContent = message;
  element("message").hidden = !message;
}

function describe() {
  const { model, data, class_names: names, parameters } = page;
  document.title = data ? `${model}, trained on ${data}` : model;
  element("title").textContent = document.title;
  element("about").textContent =
    `${names.length} classes, ${parameters.toLocaleString("en")} parameters`;
  element("accuracy").textContent = accuracy();
  element("made").textContent = `Made with ${page.made_with}.`;
}

function accuracy() {
  if (!page.accuracy) return "Accuracy: unknown. The weights file contains no measured accuracy.";
  const { top1, images } = page.accuracy;
  const on = images ? `${images.toLocaleString("en")} validation images` : "its validation images";
  const of = page.data ? ` of ${page.data}` : "";
  return `Accuracy: ${top1.toFixed(2)} % on ${on}${of}. Accuracy on other pictures may be lower.`;
}

function describeNetwork({ name, bytes, agreement, agreement_images: images }) {
  element("size").textContent = `${(bytes / 1e6).toPrecision(3)} MB`;
  const notes = [];
  if (page.networks.length === 1) notes.push(NO_INT8);
  if (name === "int8") notes.push("Activations in 8 bits, weights in 7 bits.");
  if (agreement !== undefined) {
    const share = (100 * agreement).toFixed(1);
    notes.push(`Same class as float32 for ${share} % of ${images.toLocaleString("en")} validation images.`);
  }
  element("note").textContent = notes.join(" ");
}

async function use(name) {
  const network = page.networks.find((one) => one.name === name);
  enable(false);
  try {
    const { threads } = await open(network.file, page.preprocessing);
    ready = true;
    forgetTimes();
    describeNetwork(network);
    element("made").textContent = `Made with ${page.made_with}; ${threads} thread${threads > 1 ? "s" : ""}.`;
    if (picture) await take(picture);
  } catch (error) {
    tell(`The network could not be loaded (${error.message}). Reload the page, or contact the owner of this site.`);
  }
  enable(ready);
}

function enable(whether) {
  const controls = "#file, #camera, #clear, #thumbnails button, #networks input";
  for (const control of document.querySelectorAll(controls)) control.disabled = !whether;
  const int8 = document.querySelector("[value=int8]");
  int8.disabled ||= page.networks.length < 2;
}

/** Classify a picture (Blob) or a camera frame (ImageBitmap) and show the prediction. */
async function take(image) {
  if (!ready) return;
  try {
    const answer = await classify(image);
    tell("");
    show(answer, page.class_names, page.preprocessing.input_size);
    reveal(camera ? "video" : "seen");
    if (image instanceof Blob) picture = image;
  } catch (error) {
    tell(error.message);
  }
}

function reveal(id) {
  for (const name of ["invitation", "seen", "video"]) element(name).hidden = name !== id;
  element("stage").classList.add("filled");
  const side = page.preprocessing.input_size;
  element("caption").textContent =
    id === "video" ? "Network input: the center of the frame" : `Network input: the center, ${side} × ${side} pixels`;
}

function takePicture(blob) {
  stopCamera();
  return take(blob);
}

async function switchCamera() {
  if (camera) {
    stopCamera();
    return;
  }
  try {
    camera = await startCamera(element("video"), take, stopCamera);
    picture = null;
    element("camera").textContent = "Stop the camera";
  } catch (error) {
    tell(error.message);
  }
}

function stopCamera() {
  if (!camera) return;
  camera.stop();
  camera = null;
  element("camera").textContent = "Use the camera";
  reveal("seen"); // the last frame
}

function offerDrawing() {
  element("drawing").hidden = false;
  let drawing = null; // the latest drawing, while an older drawing is classified
  let busy = false;
  const clear = listenForStrokes(element("pad"), page.drawing_side, async (bitmap) => {
    drawing = bitmap;
    picture = null;
    stopCamera();
    if (busy) return;
    busy = true;
    while (drawing) {
      const next = drawing;
      drawing = null;
      await take(next);
    }
    busy = false;
  });
  element("clear").addEventListener("click", clear);
}

async function begin() {
  page = await (await fetch("page.json")).json();
  describe();
  listen(takePicture);
  showExamples(page.examples, takePicture);
  for (const input of document.querySelectorAll("#networks input")) {
    input.addEventListener("change", () => use(input.value));
  }
  element("camera").addEventListener("click", switchCamera);
  if (page.drawing_side) offerDrawing();
  await start();
  await use("float32");
  if (ready) element("status").textContent = "Ready. Choose a picture.";
}

begin().catch((error) => {
  tell(`The page could not be loaded (${error.message}). Reload the page, or contact the owner of this site.`);
});
