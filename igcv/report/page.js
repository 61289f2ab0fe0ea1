// Figures in the colours of the page, which follow the reader's colour scheme.
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
      // With a mouse a stretch of a curve can be enlarged; a finger scrolls the page.
      dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false,
    });
    // The numbers in a heatmap keep their colour until all of it is drawn anew.
    const heatmaps = plot.data.filter((trace) => trace.type === "heatmap");
    for (const trace of heatmaps) trace.textfont = { color: ink };
    if (heatmaps.length) Plotly.redraw(plot);
  }
}

dark.addEventListener("change", paint);
paint();
// Tables that scroll can be scrolled from the keyboard.
for (const box of document.querySelectorAll(".scroll")) box.tabIndex = 0;
