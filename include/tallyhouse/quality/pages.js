// The pages' own filter is written for jQuery, which they would fetch from another server.
function showAllValidations() {
  document.body.classList.remove("only-failed");
}

function hideSucceededValidations() {
  for (const section of document.querySelectorAll(".ge-section")) {
    const met = section.querySelector(".fa-check-circle") && !section.querySelector(".fa-times");
    section.classList.toggle("hidden-when-met", Boolean(met));
  }
  document.body.classList.add("only-failed");
}
