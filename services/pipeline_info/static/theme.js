// Before anything is painted, so that a dark page never flashes light.
const chosen = localStorage.getItem("theme");
if (chosen) document.documentElement.dataset.theme = chosen;
