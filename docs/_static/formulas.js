/* Set every formula with KaTeX, and draw the plotly figures that a lesson has stored. */
for (const element of document.querySelectorAll(".formula")) {
  katex.render(element.textContent, element, {
    displayMode: element.classList.contains("display"),
    throwOnError: false,
    strict: "ignore",
  });
}
