// Recolor the figures for the reader's light or dark color scheme.
const dark = matchMedia("(prefers-color-scheme: dark)");
const plots = [...document.querySelectorAll(".js-plotly-plot")];

function paint() {
  const style = getComputedStyle(document.documentElement);
  const [ink, line, card] = ["--ink", "--line", "--card"].map((name) => style.getPropertyValue(name).trim());
  for (const plot of plots) {
    Plotly.relayout(plot, {
      "font.color": ink,
      "xaxis.gridcolor": line,
      "yaxis.gridcolor": line,
      "hoverlabel.bgcolor": card,
      "hoverlabel.font.color": ink,
      autosize: true, // the first figures were drawn before the page had its final width
      // A mouse zooms into a curve; a finger scrolls the page.
      dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false,
    });
    // The numbers in a heatmap change color only with a redraw.
    const heatmaps = plot.data.filter((trace) => trace.type === "heatmap");
    for (const trace of heatmaps) trace.textfont = { color: ink };
    if (heatmaps.length) Plotly.redraw(plot);
  }
}

dark.addEventListener("change", paint);
paint();
// Make scrollable tables reachable from the keyboard.
for (const box of document.querySelectorAll(".scroll")) box.tabIndex = 0;
