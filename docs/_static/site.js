// A table that is wider than the page scrolls by itself: let it be reached by keyboard.
function reach() {
  for (const table of document.querySelectorAll("table")) {
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
    else table.removeAttribute("tabindex");
  }
}
addEventListener("load", reach);
addEventListener("resize", reach);
