// Resizing of an image to the network's square input, with the same pixel values as `igcv predict`:
// torchvision's Resize and CenterCrop of a Pillow image. Only the central square is computed.
//
// An image is { width, height, read(left, top, width, height) }, where `read` returns RGBA bytes.

const PRECISION_BITS = 22; // of Pillow's integer weights: 32 bits, less 8 bits of a value, less 2 spare bits

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

function cubic(x) {
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return (((x - 5) * x + 8) * x - 4) * a;
}

// By name: the support of a filter in pixels, and its weight at a distance from 0 to the support.
const FILTERS = {
  bilinear: { support: 1, weight: (x) => 1 - x },
  bicubic: { support: 2, weight: cubic },
  lanczos: { support: 3, weight: (x) => sinc(x) * sinc(x / 3) },
};

/** Return the width and height with a shorter side of `shortSide`; the longer side is rounded down. */
export function resizedSize(width, height, shortSide) {
  const long = Math.trunc((shortSide * Math.max(width, height)) / Math.min(width, height));
  return width <= height ? [shortSide, long] : [long, shortSide];
}

/** Return half of an integer, rounded half to even as in Python. */
export function halved(n) {
  const low = Math.floor(n / 2);
  return n % 2 === 0 || low % 2 === 0 ? low : low + 1;
}

/**
 * Return the contributions to the output pixels `from`..`to` of one axis, when `length` pixels become `resized`.
 *
 * @returns for each output pixel { start, weights }: the first input pixel, and integer weights that sum to about 2^22.
 */
export function contributions(length, resized, from, to, filter) {
  const scale = length / resized;
  const stretch = Math.max(scale, 1); // antialiasing: a smaller output needs a wider filter
  const support = filter.support * stretch;
  return Array.from({ length: to - from }, (_, i) => {
    const center = (from + i + 0.5) * scale;
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), length);
    return { start, weights: wholeNumbers(start, end, center, stretch, filter) };
  });
}

function wholeNumbers(start, end, center, stretch, filter) {
  const weights = new Float64Array(end - start);
  for (let x = start; x < end; x++) {
    const distance = Math.abs((x - center + 0.5) * (1 / stretch));
    weights[x - start] = distance < filter.support ? filter.weight(distance) : 0;
  }
  const sum = weights.reduce((a, b) => a + b, 0);
  return Int32Array.from(weights, (w) => {
    const scaled = (sum === 0 ? w : w / sum) * (1 << PRECISION_BITS);
    return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
  });
}

/**
 * Return the network's input.
 *
 * @param image an image of any size; see above.
 * @param preprocessing `short_side`, `input_size` and `interpolation` of page.json.
 * @returns Uint8Array of input_size x input_size x 3: red, green, blue.
 */
export function centerSquare(image, preprocessing) {
  const { short_side: shortSide, input_size: side, interpolation } = preprocessing;
  const [width, height] = resizedSize(image.width, image.height, shortSide);
  const left = halved(width - side); // never below 0, as short_side is at least input_size
  const top = halved(height - side);
  if (interpolation === "nearest") return nearest(image, width, height, left, top, side);
  const filter = FILTERS[interpolation];
  const columns = contributions(image.width, width, left, left + side, filter);
  const rows = contributions(image.height, height, top, top + side, filter);
  // Pillow filters horizontally, rounds, and filters vertically. Since version 13 Pillow uses the reverse order for
  // images that shrink and are more than twice as high as wide.
  const downFirst = image.height > 2 * image.width && height < image.height;
  return downFirst
    ? transposedSquare(filtered(transposed(image), rows, columns), side)
    : filtered(image, columns, rows);
}

/** Return the transposed image: x becomes y. */
function transposed({ width, height, read }) {
  return {
    width: height,
    height: width,
    read(left, top, columns, rows) {
      const source = new Uint32Array(read(top, left, rows, columns).slice().buffer); // a pixel at a time
      const target = new Uint32Array(source.length);
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++) target[y * columns + x] = source[x * rows + y];
      }
      return new Uint8Array(target.buffer);
    },
  };
}

function transposedSquare(pixels, side) {
  const square = new Uint8Array(pixels.length);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const from = 3 * (x * side + y);
      square.set(pixels.subarray(from, from + 3), 3 * (y * side + x));
    }
  }
  return square;
}

/** Return the square of `columns` and `rows`, which have equal lengths. */
function filtered(image, columns, rows) {
  return filteredDown(filteredAcross(image, columns, rows), rows, columns.length);
}

const BAND_PIXELS = 1 << 21; // read at a time, to limit the memory of large images

/** Filter the input rows of `rows` horizontally: return { first, pixels }, with 3 bytes for each of `columns`. */
function filteredAcross(image, columns, rows) {
  const first = rows[0].start;
  const count = rows.at(-1).start + rows.at(-1).weights.length - first;
  const left = columns[0].start;
  const span = columns.at(-1).start + columns.at(-1).weights.length - left;
  const pixels = new Uint8Array(count * columns.length * 3);
  const band = Math.max(1, Math.floor(BAND_PIXELS / span));
  for (let y = 0; y < count; y += band) {
    const height = Math.min(band, count - y);
    const source = image.read(left, first + y, span, height);
    for (let row = 0; row < height; row++) {
      acrossOneRow(source, row * span - left, columns, pixels, (y + row) * columns.length * 3);
    }
  }
  return { first, pixels };
}

/** Filter one row: `source` has 4 bytes per pixel, x at pixel `offset` + x; `target` gets 3 per pixel from `at` on. */
function acrossOneRow(source, offset, columns, target, at) {
  for (const { start, weights } of columns) {
    let red = 1 << (PRECISION_BITS - 1);
    let green = red;
    let blue = red;
    let from = 4 * (offset + start);
    for (const weight of weights) {
      red += source[from] * weight;
      green += source[from + 1] * weight;
      blue += source[from + 2] * weight;
      from += 4;
    }
    target[at++] = toByte(red);
    target[at++] = toByte(green);
    target[at++] = toByte(blue);
  }
}

function filteredDown({ first, pixels }, rows, side) {
  const stride = side * 3;
  const square = new Uint8Array(side * stride);
  rows.forEach(({ start, weights }, y) => {
    for (let x = 0; x < stride; x++) {
      let sum = 1 << (PRECISION_BITS - 1);
      let from = (start - first) * stride + x;
      for (const weight of weights) {
        sum += pixels[from] * weight;
        from += stride;
      }
      square[y * stride + x] = toByte(sum);
    }
  });
  return square;
}

function toByte(sum) {
  const value = sum >> PRECISION_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

function nearest(image, width, height, left, top, side) {
  const columns = nearestPixels(image.width, width, left, side);
  const rows = nearestPixels(image.height, height, top, side);
  const span = columns.at(-1) - columns[0] + 1;
  const square = new Uint8Array(side * side * 3);
  rows.forEach((row, y) => {
    const source = image.read(columns[0], row, span, 1);
    columns.forEach((column, x) => {
      const from = 4 * (column - columns[0]);
      square.set(source.subarray(from, from + 3), 3 * (y * side + x));
    });
  });
  return square;
}

/** Return the input pixels of `count` output pixels from `from`, with the step-by-step sum (and rounding) of Pillow. */
function nearestPixels(length, resized, from, count) {
  const scale = length / resized;
  const pixels = [];
  let position = scale * 0.5;
  for (let i = 0; i < from + count; i++, position += scale) {
    if (i >= from) pixels.push(Math.trunc(position));
  }
  return pixels;
}
