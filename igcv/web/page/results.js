// Display of a prediction.

const SHOWN = 5; // classes
const RECENT = 15; // latest times, of which the page shows the median
const COARSE = 96; // side in pixels; smaller inputs are enlarged without smoothing

const element = (id) => document.getElementById(id);
let times = [];

/** Clear the times of the previous network. */
export function forgetTimes() {
  times = [];
  element("time").textContent = "–";
}

/** Show an answer of worker.js. */
export function show({ probabilities, pixels, networkMs }, classNames, side) {
  const best = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, SHOWN);
  announce(classNames[best[0]]);
  element("bars").replaceChildren(...best.map((label) => bar(classNames[label], probabilities[label])));
  showPixels(pixels, side);
  times = [...times, networkMs].slice(-RECENT);
  element("time").textContent = `${median(times).toPrecision(3)} ms`;
}

/** Update the answer only on a change: screen readers would read it out for each camera frame. */
function announce(name) {
  const answer = element("answer");
  if (answer.textContent !== name) answer.textContent = name;
}

function bar(name, probability) {
  const percent = `${(100 * probability).toFixed(1)} %`;
  const item = document.createElement("li");
  item.append(part("span", "name", name), part("span", "percent", percent), part("div", "track"));
  const fill = part("div", "fill");
  fill.style.width = `${100 * probability}%`;
  item.lastChild.append(fill);
  item.firstChild.title = name;
  return item;
}

function part(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

/** Show `pixels`, the RGB values of `side` x `side` pixels. */
function showPixels(pixels, side) {
  const canvas = element("seen");
  Object.assign(canvas, { width: side, height: side });
  canvas.classList.toggle("coarse", side < COARSE);
  const image = new ImageData(side, side);
  for (let i = 0; i < side * side; i++) {
    image.data.set(pixels.subarray(3 * i, 3 * i + 3), 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
