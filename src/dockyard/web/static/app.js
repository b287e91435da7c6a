// Five small comforts; every page works without them.
"use strict";

function offerCopies(root) {
  for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const text = button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Without TLS browsers give no clipboard: select the text, the person presses Ctrl-C.
    getSelection().selectAllChildren(button.parentElement.querySelector("code"));
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const search = document.querySelector("input[type=search]");
  if (search) { event.preventDefault(); search.focus(); search.select(); }
});

// A log is read from its end, unless somebody has scrolled up in it.
function showEnd() {
  const log = document.querySelector(".log");
  if (log) log.scrollTop = log.scrollHeight;
}
let atEnd = true;
// What somebody has opened stays open when a part of the page comes anew.
let opened = [];
document.addEventListener("htmx:beforeSwap", (event) => {
  opened = [...event.target.querySelectorAll("details[open][id]")].map((one) => one.id);
  const log = document.querySelector(".log");
  atEnd = !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 24;
});

document.addEventListener("htmx:afterSwap", (event) => {
  offerCopies(event.target);
  for (const id of opened) {
    const one = document.getElementById(id);
    if (one) one.open = true;
  }
  if (atEnd && event.target.querySelector(".log")) showEnd();
  if (event.target.id === "said" && event.target.textContent.trim()) event.target.focus();
});
document.addEventListener("DOMContentLoaded", () => { offerCopies(document); showEnd(); });
