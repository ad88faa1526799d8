// SPDX-License-Identifier: Apache-2.0
// What pages can do beyond HTML. All of it may be missing: every act works without.
"use strict";
(() => {
  const body = document.body;

  // On a telephone the menu is folded, so that the page begins where the eye is.
  const menu = document.querySelector("details.menu");
  if (menu && matchMedia("(max-width: 40rem)").matches) menu.open = false;

  // Leave at once: blank the page, end the session, go to another site. One key, or the button.
  const leave = () => {
    document.documentElement.classList.add("gone");
    // The node may hear of it later than somebody goes back: this tab shows nothing of it any more.
    try { sessionStorage.setItem("left", "yes"); } catch { /* then only the node knows */ }
    navigator.sendBeacon("/leave");
    location.replace(body.dataset.leave);
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing) {
      event.preventDefault();
      leave();
    }
  });
  document.getElementById("leave")?.addEventListener("submit", (event) => {
    event.preventDefault();
    leave();
  });

  // A page that comes out of the browser's memory may be of a session that has ended.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });

  // Nothing was done for a while: what is on the screen goes, as the session does.
  if (body.dataset.idle) {
    let timer;
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(() => location.replace("/signin?why=idle"), Number(body.dataset.idle) * 1000);
    };
    for (const name of ["keydown", "pointerdown", "input"]) document.addEventListener(name, wait, { passive: true });
    wait();
  }

  // A form is sent once, however often the button is pressed; it can be sent again when she comes back to the page.
  document.addEventListener("submit", (event) => {
    if (event.defaultPrevented) return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
    setTimeout(() => delete event.target.dataset.sent, 5000);
  });

  // Long forms are kept as a sealed draft while they are written.
  const form = document.querySelector("form[data-draft]");
  if (form) {
    let changed = false;
    form.addEventListener("input", () => { changed = true; });
    setInterval(() => {
      if (!changed || form.dataset.sent) return;
      changed = false;
      const data = new URLSearchParams(new FormData(form));
      data.set("next", "later");
      fetch(form.dataset.draft, { method: "POST", body: data, redirect: "manual" });
    }, 20000);
  }

  // What somebody chose on this device: whether a tone sounds, whether a key acknowledges. A device that keeps nothing
  // has the tone and not the key.
  const remembered = (name) => {
    try { return (localStorage.getItem(name) ?? (name === "sound" ? "yes" : "no")) === "yes"; }
    catch { return name === "sound"; }
  };
  const device = document.getElementById("device");
  if (device) {
    device.hidden = false;
    for (const box of device.querySelectorAll("[data-remember]")) {
      box.checked = remembered(box.dataset.remember);
      box.addEventListener("change", () => {
        try { localStorage.setItem(box.dataset.remember, box.checked ? "yes" : "no"); } catch { /* kept for this page */ }
      });
    }
  }
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select");
    if (typing || event.ctrlKey || event.altKey || event.metaKey || event.repeat || !remembered("key")) return;
    document.querySelector(`button[data-key="${CSS.escape(event.key.toLowerCase())}"]`)?.click();
  });

  // More alerts wait than before: the title says so, and a tone sounds where the device lets it.
  let loud = Number(document.getElementById("live")?.dataset.loud || 0);
  const title = document.title;
  const call = () => {
    const now = Number(document.getElementById("live")?.dataset.loud || 0);
    document.title = now ? `(${now}) ${title}` : title;
    if (now > loud && window.AudioContext && remembered("sound")) {
      const sound = new AudioContext(), tone = sound.createOscillator();
      tone.frequency.value = 880;
      tone.connect(sound.destination);
      tone.start();
      tone.stop(sound.currentTime + 0.4);
    }
    loud = now;
  };

  // News: the node says that something changed, and the part that lives is fetched again.
  const listen = () => {
    const live = document.getElementById("live");
    if (!live || !live.dataset.events || !window.EventSource) return;
    const source = new EventSource(live.dataset.events);
    let latest, timer;
    // Until the page is as new as the last news: one more change may have come while it was fetched.
    const check = () => {
      const now = document.getElementById("live");
      timer = undefined;
      if (!now || now.dataset.events.endsWith(latest)) return;
      // Nobody's half-written answer is taken away, nor a file that is being sent, nor what is said about it.
      const sending = "form[data-upload] button:disabled, form[data-upload] [role=alert]:not(:empty)";
      if (!now.querySelector("details[open], " + sending) && !now.contains(document.activeElement?.closest("form"))) {
        htmx.trigger(now, "changed");
      }
      timer = setTimeout(check, 500);
    };
    source.addEventListener("changed", (event) => {
      latest = event.data;
      if (live.dataset.loud !== undefined) setTimeout(call, 800);
      timer ??= setTimeout(check, 0);
    });
    source.addEventListener("ended", () => location.replace("/signin?why=idle"));
    window.addEventListener("pagehide", () => source.close());
  };
  listen();

  // A file is sent with its progress, and refused before it is sent when it is too large.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.dataset.upload) return;
    event.preventDefault();
    const file = form.elements.file.files[0], said = form.querySelector("[role=alert]");
    const bar = form.querySelector("progress"), button = form.querySelector("button");
    said.textContent = "";
    if (file && file.size > Number(form.dataset.upload)) {
      said.textContent = form.dataset.large;
      return;
    }
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "application/json");
    bar.hidden = false;
    button.disabled = true;
    request.upload.addEventListener("progress", (news) => { bar.value = news.loaded / news.total; });
    request.addEventListener("loadend", () => {
      bar.hidden = true;
      button.disabled = false;
      if (request.status === 200) location.replace(request.responseURL);
      else if (request.status === 401) location.replace("/signin?why=idle");
      else said.textContent = request.status ? JSON.parse(request.responseText).text : form.dataset.lost;
    });
    request.send(new FormData(form));
  }, true);

  document.querySelector(".problems")?.focus();
})();
