// Picture inputs: file chooser, drag and drop, clipboard, and examples.

const COARSE = 64; // example side in pixels; smaller examples are enlarged without smoothing

const element = (id) => document.getElementById(id);

/** Pass every picture, as a Blob, to `take`. */
export function listen(take) {
  const file = element("file");
  file.addEventListener("change", () => {
    if (file.files.length) take(file.files[0]);
    file.value = ""; // lets the visitor choose the same file again
  });
  document.addEventListener("paste", (event) => takeFirst(event.clipboardData.files, take));
  const stage = element("stage");
  const over = (event) => {
    event.preventDefault(); // the browser would open the file instead of the page
    stage.classList.toggle("over", event.type === "dragover");
  };
  for (const type of ["dragover", "dragleave", "drop"]) document.addEventListener(type, over);
  document.addEventListener("drop", (event) => takeFirst(event.dataTransfer.files, take));
}

function takeFirst(files, take) {
  if (files.length) take(files[0]);
}

/** Show the examples as thumbnails; `examples` of page.json. */
export function showExamples(examples, take) {
  element("examples").hidden = examples.length === 0;
  element("thumbnails").replaceChildren(...examples.map((example) => thumbnail(example, take)));
}

function thumbnail({ file, label }, take) {
  const image = Object.assign(new Image(), { src: file, alt: `Example: ${label}`, title: label, loading: "lazy" });
  image.addEventListener("load", () => image.classList.toggle("coarse", image.naturalWidth < COARSE));
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.append(image);
  button.addEventListener("click", async () => take(await (await fetch(file)).blob()));
  const item = document.createElement("li");
  item.append(button);
  return item;
}
