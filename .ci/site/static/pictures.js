// A <picture> asks the system for its light; a reader may have chosen the other.
const DARK = "(prefers-color-scheme: dark)";
const darkOnes = [...document.querySelectorAll("picture source")].filter(({ media }) => media === DARK);

function choose() {
  const media = { dark: "all", light: "not all" }[document.body.dataset.theme] ?? DARK;
  for (const source of darkOnes) source.media = media;
}

new MutationObserver(choose).observe(document.body, { attributeFilter: ["data-theme"] });
choose();
