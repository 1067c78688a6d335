// Renews the part of the page that is live, unless somebody is using it; the page is whole without this.
"use strict";
const live = document.getElementById("live");
if (live) {
  const every = Number(live.dataset.live) * 1000;
  const renew = async () => {
    const busy = document.hidden || live.contains(document.activeElement) || String(getSelection());
    if (!busy) {
      try {
        const answer = await fetch(location.href, { headers: { "x-fragment": "1" }, redirect: "error" });
        if (answer.ok) live.innerHTML = await answer.text();
      } catch { /* the next one may come through */ }
    }
    setTimeout(renew, every);
  };
  setTimeout(renew, every);
}

// An approval is signed here, with the key file that its person chooses; only the signature is sent.
const PKCS8 = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const bytes = (text) => Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
for (const form of document.querySelectorAll("form[data-yes]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = event.submitter ? event.submitter.value : "yes";
    try {
      const seed = bytes(await form.querySelector(".key").files[0].text());
      const key = await crypto.subtle.importKey("pkcs8", new Uint8Array([...PKCS8, ...seed]), "Ed25519", false, ["sign"]);
      const text = new TextEncoder().encode(form.dataset[answer]);
      const signed = new Uint8Array(await crypto.subtle.sign("Ed25519", key, text));
      form.elements.signature.value = btoa(String.fromCharCode(...signed));
      form.elements.yes.value = answer;
      form.submit();
    } catch (error) {
      alert(`not signed: ${error.message}`);
    }
  });
}
