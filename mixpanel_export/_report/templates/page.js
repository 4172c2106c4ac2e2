for (const element of document.querySelectorAll("[data-chart]")) {
  const spec = JSON.parse(document.getElementById(element.dataset.chart).textContent);
  vegaEmbed(element, spec, { actions: false, renderer: "svg", ast: true, mode: "vega-lite" });
}
