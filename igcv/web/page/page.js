// The page: what it says about its network, and what its controls do.

import { startCamera } from "./camera.js";
import { listen, showExamples } from "./inputs.js";
import { listenForStrokes } from "./pad.js";
import { classify, open, start } from "./predict.js";
import { forgetTimes, show } from "./results.js";

const NO_INT8 =
  "There is no int8 network here: no images to set its ranges with were at hand when this page was made.";

const element = (id) => document.getElementById(id);
let page; // page.json
let ready = false; // whether a network is open
let camera = null; // while it runs
let picture = null; // the last one, to classify again with another network

function tell(message) {
  element("message").textContent = message;
  element("message").hidden = !message;
}

function describe() {
  const { model, data, class_names: names, parameters } = page;
  document.title = data ? `${model}, trained on ${data}` : model;
  element("title").textContent = document.title;
  element("about").textContent =
    `Tells ${names.length} classes apart, with ${parameters.toLocaleString("en")} parameters.`;
  element("accuracy").textContent = accuracy();
  element("made").textContent = `Made with ${page.made_with}.`;
}

function accuracy() {
  if (!page.accuracy) return "How often it is right is not known: no measured accuracy came with its weights.";
  const { top1, images } = page.accuracy;
  const on = images ? `${images.toLocaleString("en")} validation images` : "its validation images";
  return `It is right for ${top1.toFixed(2)} % of ${on}${page.data ? ` of ${page.data}` : ""}; other pictures may fare worse.`;
}

function describeNetwork({ name, bytes, agreement, agreement_images: images }) {
  element("size").textContent = `${(bytes / 1e6).toPrecision(3)} MB`;
  const notes = [];
  if (page.networks.length === 1) notes.push(NO_INT8);
  if (name === "int8") notes.push("Weights and activations in 8 bits.");
  if (agreement !== undefined) {
    const share = (100 * agreement).toFixed(1);
    notes.push(`The class is that of float32 for ${share} % of ${images.toLocaleString("en")} validation images.`);
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
    tell(`The network could not be loaded (${error.message}). Load the page again, or ask who runs this site.`);
  }
  enable(ready);
}

function enable(whether) {
  const controls = "#file, #camera, #clear, #thumbnails button, #networks input";
  for (const control of document.querySelectorAll(controls)) control.disabled = !whether;
  const int8 = document.querySelector("[value=int8]");
  int8.disabled ||= page.networks.length < 2;
}

/** Classify a picture (Blob) or a frame of the camera (ImageBitmap) and show what comes out. */
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
    id === "video" ? "The network sees the middle of it." : `What the network sees: the middle, ${side} × ${side} pixels.`;
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
  let drawing = null; // the latest, while an older one is classified
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
  if (ready) element("status").textContent = "Ready. Give it a picture.";
}

begin().catch((error) => {
  tell(`The page could not be loaded (${error.message}). Load it again, or ask who runs this site.`);
});
