// The ways in which a picture comes to the page: chosen, dropped, pasted, or one of the examples.

const COARSE = 64; // pixels of an example's side, below which they are shown as the squares that they are

const element = (id) => document.getElementById(id);

/** Hand every picture, as a Blob, to `take`. */
export function listen(take) {
  const file = element("file");
  file.addEventListener("change", () => {
    if (file.files.length) take(file.files[0]);
    file.value = ""; // so that the same one can be chosen again
  });
  document.addEventListener("paste", (event) => takeFirst(event.clipboardData.files, take));
  const stage = element("stage");
  const over = (event) => {
    event.preventDefault(); // else the browser would open the file in place of the page
    stage.classList.toggle("over", event.type === "dragover");
  };
  for (const type of ["dragover", "dragleave", "drop"]) document.addEventListener(type, over);
  document.addEventListener("drop", (event) => takeFirst(event.dataTransfer.files, take));
}

function takeFirst(files, take) {
  if (files.length) take(files[0]);
}

/** The examples as thumbnails; `examples` of page.json. */
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
