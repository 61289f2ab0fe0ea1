// Drawing pad, white on black; the drawing is scaled to the size of the network's training pictures.

const STROKE = 0.12; // stroke width, as a fraction of the pad's side

/**
 * Draw the visitor's strokes into `canvas`, and pass the drawing to `changed` after each change.
 *
 * @param side side of the network's training pictures, in pixels.
 * @param changed callback with an ImageBitmap of `side` x `side` pixels.
 * @returns a function that clears the pad.
 */
export function listenForStrokes(canvas, side, changed) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { lineWidth: STROKE * canvas.width, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
  let last = null; // last point of the current stroke, or null
  const stroke = (event) => {
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    const point = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    context.beginPath();
    context.moveTo(...(last ?? point));
    context.lineTo(...point);
    context.stroke();
    last = point;
    changed(reduced(canvas, drawnBox(context, canvas.width), side));
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    stroke(event);
  });
  canvas.addEventListener("pointermove", (event) => last && stroke(event));
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
  return () => context.clearRect(0, 0, canvas.width, canvas.height);
}

/** Return the smallest square around the drawing, { left, top, size }; digits of the data fill their images, too. */
function drawnBox(context, side) {
  const { data } = context.getImageData(0, 0, side, side);
  let [left, top, right, bottom] = [side, side, 0, 0];
  for (let i = 0; i < side * side; i++) {
    if (data[4 * i + 3] === 0) continue; // transparent: not drawn
    const [x, y] = [i % side, Math.floor(i / side)];
    [left, top] = [Math.min(left, x), Math.min(top, y)];
    [right, bottom] = [Math.max(right, x + 1), Math.max(bottom, y + 1)];
  }
  const size = Math.max(right - left, bottom - top);
  return { left: (left + right - size) / 2, top: (top + bottom - size) / 2, size };
}

/** Scale the box to `side` x `side` pixels by repeated halving, so that each pixel is the mean of its area. */
function reduced(canvas, { left, top, size }, side) {
  let now = new OffscreenCanvas(side * 16, side * 16);
  paint(now, (context) => context.drawImage(canvas, left, top, size, size, 0, 0, now.width, now.height));
  while (now.width > side) {
    const before = now;
    now = new OffscreenCanvas(before.width / 2, before.height / 2);
    paint(now, (context) => context.drawImage(before, 0, 0, now.width, now.height));
  }
  return now.transferToImageBitmap();
}

function paint(canvas, draw) {
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, canvas.width, canvas.height); // black
  draw(context);
}
