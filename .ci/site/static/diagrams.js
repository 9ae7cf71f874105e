const diagrams = [...document.querySelectorAll(".mermaid")].map((place) => [place, place.textContent]);
const system = matchMedia("(prefers-color-scheme: dark)");

async function draw() {
  const chosen = document.body.dataset.theme;
  const dark = chosen === "dark" || (chosen !== "light" && system.matches);
  mermaid.initialize({
    startOnLoad: false,
    theme: dark ? "dark" : "neutral",
    themeVariables: dark
      ? { edgeLabelBackground: "#303338", noteBkgColor: "#303338", noteTextColor: "#eee" }
      : {},
  });
  for (const [number, [place, text]] of diagrams.entries()) {
    place.innerHTML = (await mermaid.render(`diagram-${number}`, text)).svg;
    const heading = place.closest("section").querySelector("h1, h2, h3").firstChild.textContent;
    place.firstChild.setAttribute("aria-label", `Diagram: ${heading}`);
  }
}

system.addEventListener("change", draw);
new MutationObserver(draw).observe(document.body, { attributeFilter: ["data-theme"] });
draw();
