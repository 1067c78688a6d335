// What htmx leaves to us: when a live part may be renewed, and approvals that are signed here. Pages are whole without it.
"use strict";
const renews = (event) => event.detail.requestConfig.elt.id === "live";
const stale = (is) => { document.getElementById("away").hidden = !is; };
const inUse = () => {
  const live = document.getElementById("live"), at = document.activeElement;
  const typed = [...live.querySelectorAll("input")].some((field) => field.value !== field.defaultValue);
  return document.hidden || (at !== live && live.contains(at)) || typed || String(getSelection()) !== "";
};
document.addEventListener("htmx:beforeRequest", (event) => {
  if (renews(event) && inUse()) event.preventDefault();
});
// A lost connection, a proxy's own page, a plain 500: htmx shows none of them, and whoever acted must not wait for nothing.
const unanswered = (event) => {
  if (renews(event)) return stale(true);
  const told = Object.assign(document.createElement("p"), { className: "warn", role: "alert", tabIndex: -1 });
  const acted = event.detail.requestConfig.verb !== "get";
  told.textContent = `No answer came: ${acted ? "it may be done or not. Load the page again before you repeat it." : "try again."}`;
  document.getElementById("said").replaceChildren(told);
  if (acted) told.focus();
};
for (const lost of ["htmx:sendError", "htmx:timeout"]) document.addEventListener(lost, unanswered);
document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr } = event.detail, isOurs = /\bid="(main|live)"/.test(xhr.responseText);
  if (!isOurs) unanswered(event);
  else if (renews(event)) stale(xhr.status >= 400);
  else document.getElementById("said").replaceChildren(); // what was said before is over
  if (!isOurs || (renews(event) && (xhr.status >= 400 || inUse()))) event.preventDefault();
});
// Safari gives a file's field no focus when it is pressed, and the field must outlive its dialogue.
document.addEventListener("click", (event) => { if (event.target.matches("input[type=file]")) event.target.focus(); });
// Whoever turned a page by keyboard is at its beginning, not where the link was.
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.detail.requestConfig.elt.matches("a")) document.getElementById("live").focus({ preventScroll: true });
});

// An approval is signed here, with the key file that its person chooses; only the signature is sent.
const PKCS8 = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const bytes = (text) => Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
document.addEventListener("htmx:confirm", async (event) => {
  const form = event.target;
  if (!form.matches("form[data-yes]")) return;
  event.preventDefault();
  const answer = event.detail.triggeringEvent.submitter?.value ?? "yes";
  try {
    const seed = bytes(await form.querySelector(".key").files[0].text());
    const key = await crypto.subtle.importKey("pkcs8", new Uint8Array([...PKCS8, ...seed]), "Ed25519", false, ["sign"]);
    const text = new TextEncoder().encode(form.dataset[answer]);
    const signed = new Uint8Array(await crypto.subtle.sign("Ed25519", key, text));
    form.elements.signature.value = btoa(String.fromCharCode(...signed));
    form.elements.yes.value = answer;
    event.detail.issueRequest(true);
  } catch (error) {
    alert(`not signed: ${error.message}`);
  }
});
