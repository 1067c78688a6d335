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
