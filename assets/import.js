// Sends the file that was chosen in pieces, each from where the broker says that it has come. What fails in
// passing is tried again; an upload that broke off is gone on with when its file is chosen again.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const form = byId("import");
  if (!form) return;
  form.hidden = false;
  const piece = Number(form.dataset.piece), path = form.getAttribute("action");
  // How often a piece is tried anew, and after how many milliseconds.
  const TRIES = 20, PAUSE = 3000;

  // What does not pass by itself.
  class Refused extends Error {}

  const ask = async (where, options = {}) => {
    const answer = await fetch(where, { cache: "no-store", ...options });
    if (answer.redirected) throw new Refused("You are signed out. Sign in again, and choose the file again: it goes on.");
    if (answer.ok) return answer.json();
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const text = page.getElementById("message")?.textContent ?? `The broker answered ${answer.status}.`;
    const passes = answer.status >= 500 || [409, 429].includes(answer.status);
    throw passes ? new Error(text) : new Refused(text);
  };

  const size = (bytes) => `${(bytes / 1048576).toFixed(1)} MiB`;
  const say = (text, isBad) => {
    const told = document.createElement("p");
    told.id = "message";
    told.className = isBad ? "message error" : "message";
    told.textContent = text;
    byId("status").replaceChildren(...(text ? [told] : []));
  };
  const show = (received, all) => {
    byId("sending").hidden = false;
    byId("sent").value = received / all;
    byId("sent-text").textContent = `${size(received)} of ${size(all)} sent`;
  };

  const begin = (file) => {
    const { csrf, version, note } = form.elements;
    const fields = { csrf: csrf.value, version: version.value, note: note.value, bytes: file.size };
    return ask(path, { method: "POST", body: new URLSearchParams(fields) });
  };

  // Returns where the backup is told of.
  const send = async (file, id) => {
    let failures = 0, at = null;
    for (;;) {
      try {
        at ??= await ask(`${path}/${id}`);
        if (at.backup) return at.backup;
        show(at.received, file.size);
        at = await ask(`${path}/${id}`, {
          method: "PATCH",
          body: file.slice(at.received, at.received + piece),
          headers: {
            "Content-Type": "application/octet-stream",
            "Upload-Offset": at.received,
            "X-CSRF": form.elements.csrf.value,
          },
        });
        failures = 0;
        say("");
      } catch (error) {
        failures += 1;
        if (error instanceof Refused || failures > TRIES) throw error;
        say(`${error.message} It is tried again.`, true);
        await new Promise((done) => setTimeout(done, PAUSE));
        at = null;
      }
    }
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [file] = form.elements.file.files, chosen = form.elements.upload?.selectedOptions[0];
    if (chosen?.value && Number(chosen.dataset.bytes) !== file.size) {
      say("This file has another length than the one of that upload.", true);
      return;
    }
    const button = byId("import-button");
    button.disabled = true;
    say("");
    try {
      const id = chosen?.value || (await begin(file)).id;
      location.assign(await send(file, id));
    } catch (error) {
      say(error.message, true);
      button.disabled = false;
    }
  });
})();
