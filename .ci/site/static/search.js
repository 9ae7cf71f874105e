// The lines that a search shows are cut anywhere, also within a formula.
const wholeText = Search.htmlToText;
Search.htmlToText = (page, anchor) =>
  wholeText(page.replace(/(<(?:div|span) class="math[^>]*>)[^<]*/g, "$1…"), anchor);
