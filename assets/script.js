// Copy buttons, tabs, times that count on, and pages that stay true. Every page works without it.
(() => {
  "use strict";
  document.documentElement.classList.add("js");
  const byId = (id) => document.getElementById(id);

  // ---- copy buttons ----

  const said = (button, text) => {
    const label = button.textContent;
    const name = button.getAttribute("aria-label") || label;
    if (label === text) return;
    button.textContent = text;
    byId("said").textContent = `${text}: ${name}`;
    setTimeout(() => { button.textContent = label; }, 2000);
  };

  const copyByHand = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy");
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    const element = button && byId(button.dataset.copy);
    if (!element) return;
    let done;
    try {
      await navigator.clipboard.writeText(element.textContent);
      done = true;
    } catch {
      // Without TLS browsers have no clipboard for pages.
      done = copyByHand(element);
    }
    said(button, done ? "Copied" : "Press Ctrl+C");
  });

  // ---- tabs ----

  const choose = (list, index, focus) => [...list.children].forEach((tab, i) => {
    const is = i === index;
    tab.setAttribute("aria-selected", String(is));
    tab.tabIndex = is ? 0 : -1;
    list.parentNode.querySelector(`#${tab.getAttribute("aria-controls")}`).hidden = !is;
    if (focus && is) tab.focus();
  });

  // A page as it comes has sections with headings; of those of `page` one is shown, the one that is
  // shown now.
  const makeTabs = (page) => page.querySelectorAll("[data-tabs]").forEach((box) => {
    const panels = [...box.querySelectorAll(":scope > section")];
    const list = page.createElement("div");
    list.id = `${box.id}-tabs`;
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", box.dataset.tabs);
    let chosen = 0;
    panels.forEach((panel, i) => {
      const heading = panel.querySelector("h3");
      const tab = page.createElement("button");
      tab.type = "button";
      tab.id = `${box.id}-tab-${i}`;
      tab.textContent = heading.textContent;
      tab.setAttribute("role", "tab");
      panel.id = panel.id || `${box.id}-panel-${i}`;
      tab.setAttribute("aria-controls", panel.id);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      panel.tabIndex = 0;
      heading.hidden = true;
      if (byId(tab.id)?.getAttribute("aria-selected") === "true") chosen = i;
      list.append(tab);
    });
    box.prepend(list);
    choose(list, chosen);
  });

  document.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) choose(tab.parentNode, [...tab.parentNode.children].indexOf(tab));
  });
  document.addEventListener("keydown", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (!tab) return;
    const list = tab.parentNode;
    const now = [...list.children].indexOf(tab);
    const count = list.children.length;
    const to = {
      ArrowRight: (now + 1) % count,
      ArrowLeft: (now + count - 1) % count,
      Home: 0,
      End: count - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(list, to, true);
  });

  // ---- times ----

  // By how much the broker's clock is ahead of this machine's.
  let ahead = 0;
  const setClock = (page) => {
    const now = Number(page.body.dataset.now);
    if (now) ahead = now - Date.now();
  };

  const MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR, YEAR = 365 * DAY;
  // As the broker says it, see model/relative_time.rs: times past rounded down, times ahead to the nearest.
  const pastUnit = (seconds) => seconds < MINUTE ? [1, "second"]
    : seconds < HOUR ? [MINUTE, "minute"]
    : seconds < DAY ? [HOUR, "hour"]
    : seconds < 14 * DAY ? [DAY, "day"]
    : seconds < 61 * DAY ? [7 * DAY, "week"]
    : seconds < 2 * YEAR ? [30 * DAY, "month"]
    : [YEAR, "year"];
  const nearest = (seconds, unit) => Math.floor((seconds + unit / 2) / unit);
  const unitAhead = (seconds) => seconds < MINUTE ? [1, "second"]
    : nearest(seconds, MINUTE) < 60 ? [MINUTE, "minute"]
    : nearest(seconds, HOUR) < 24 ? [HOUR, "hour"]
    : nearest(seconds, DAY) < 730 ? [DAY, "day"]
    : [YEAR, "year"];
  const relative = (at) => {
    const passed = (Date.now() + ahead - at) / 1000;
    const seconds = Math.floor(Math.abs(passed));
    if (seconds < 10) return passed <= -1 ? "in a moment" : "just now";
    const [length, unit] = passed >= 0 ? pastUnit(seconds) : unitAhead(seconds);
    const count = passed >= 0 ? Math.floor(seconds / length) : nearest(seconds, length);
    const text = `${count} ${unit}${count === 1 ? "" : "s"}`;
    return passed >= 0 ? `${text} ago` : `in ${text}`;
  };
  const countOn = (page) => page.querySelectorAll("time [data-ago]").forEach((part) => {
    const told = relative(Date.parse(part.closest("time").dateTime));
    const text = part.dataset.ago !== "for" ? told
      : told.endsWith(" ago") ? `for ${told.slice(0, -4)}` : "since a moment ago";
    if (part.textContent !== text) part.textContent = text;
  });

  // ---- pages that stay true ----

  // What differs is changed, and nothing else: the focus, open rows, fields and the place where one
  // reads stay, and who has the page read out hears what is new alone.
  const isOurs = (element, name) =>
    (name === "open" && element.nodeName === "DETAILS")
    || (name === "value" && element.matches("input:not([type=hidden]), textarea"));

  // What tells something from what stands beside it.
  const keyOf = (node) => node.id || node.getAttribute?.("aria-labelledby") || "";

  const become = (old, fresh) => {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !isOurs(old, name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value && !isOurs(old, name)) old.setAttribute(name, value);
    }
    const staying = new Set([...fresh.children].map(keyOf).filter(Boolean));
    let at = old.firstChild;
    const drop = () => { const gone = at; at = at.nextSibling; gone.remove(); };
    for (const next of [...fresh.childNodes]) {
      while (at && keyOf(at) && !staying.has(keyOf(at))) drop();
      const key = keyOf(next);
      let found = key ? [...old.children].find((child) => keyOf(child) === key) : at;
      const isLike = (node) => node.nodeName === next.nodeName && keyOf(node) === key;
      if (!key && next.nodeType === Node.ELEMENT_NODE) {
        while (found && !isLike(found)) found = found.nextSibling;
        while (found && at !== found && !keyOf(at)) drop();
      }
      if (!found || !isLike(found)) {
        old.insertBefore(document.importNode(next, true), at);
        continue;
      }
      if (found === at) at = at.nextSibling;
      else old.insertBefore(found, at);
      become(found, next);
    }
    while (at) drop();
  };

  const show = (page) => {
    setClock(page);
    makeTabs(page);
    countOn(page);
    const { body } = document;
    for (const name of ["data-under-way", "data-every", "data-now", "data-page", "data-name"]) {
      if (page.body.hasAttribute(name)) body.setAttribute(name, page.body.getAttribute(name));
      else body.removeAttribute(name);
    }
    if (document.title !== page.title) document.title = page.title;
    const focused = document.activeElement;
    for (const part of ["header", "main"]) {
      become(document.querySelector(`body > ${part}`), page.querySelector(`body > ${part}`));
    }
    // Where the focus was on something that is gone, one goes on from where one is.
    if (focused !== document.body && !focused.isConnected) {
      (byId(focused.id) || byId("content")).focus({ preventScroll: true });
    }
  };

  let heardAt = Date.now();
  const hear = () => {
    heardAt = Date.now();
    byId("contact").replaceChildren();
    document.body.classList.remove("lost");
  };
  const miss = () => {
    const contact = byId("contact");
    document.body.classList.add("lost");
    doubt();
    if (contact.hasChildNodes()) return;
    const time = document.createElement("time");
    time.dateTime = new Date(heardAt + ahead).toISOString();
    // How long ago that is changes all the time: nobody has that read out again and again.
    const ago = document.createElement("span"), part = document.createElement("span");
    ago.setAttribute("aria-hidden", "true");
    part.dataset.ago = "";
    ago.append(", ", part);
    // A browser may break a line at each hyphen, and not at these.
    const moment = time.dateTime.slice(0, 19).replace("T", " ").replaceAll("-", "\u2011");
    time.append(`${moment} UTC`, ago);
    contact.append("No contact with the broker since ", time, ". What is below is as it was then. Databases do not need the broker; if its machine is gone, those on it are too.");
    countOn(contact);
  };
  // Whatever the page said last, nobody knows now. The next one that comes says it anew.
  const doubt = () => {
    const { name } = document.body.dataset;
    document.title = name ? `No contact: ${name}` : "No contact";
    document.querySelectorAll("[data-health]").forEach((word) => {
      if (word.textContent.startsWith("Unknown")) return;
      word.textContent = `Unknown, was ${word.textContent}`;
      if (word.previousElementSibling) word.previousElementSibling.textContent = "?";
    });
  };

  // The page's instance is gone: nothing on it is true any more.
  let gone = false;
  const say = (title, text) => {
    if (byId("gone")?.textContent === title) return;
    const heading = document.createElement("h1");
    heading.id = "gone";
    heading.textContent = title;
    const rest = document.createElement("p");
    rest.textContent = text;
    const link = document.createElement("a");
    link.href = "/dashboard";
    link.textContent = "To your dashboard";
    byId("content").replaceChildren(heading, rest, link);
    document.querySelectorAll("#nav-of-instance, header .where").forEach((part) => part.remove());
    document.title = title;
    byId("said").textContent = title;
  };

  const FATES = {
    "signed-out": () => location.reload(),
    deleting: (name) => say(`${name} is being deleted`, "Its credentials are gone, and with them your session."),
    deleted: (name, left) => {
      gone = true;
      say(`${name} was deleted`, left);
    },
  };

  // How long an answer may take, and how long to wait after none, in milliseconds.
  const PATIENCE = 10000, AFTER_NONE = 3000;
  let timer, isLooking = false;
  const plan = (pause) => {
    clearTimeout(timer);
    if (!document.hidden && !gone) timer = setTimeout(look, pause);
  };

  const look = async () => {
    const { page = "", name = "", every } = document.body.dataset;
    if (isLooking || gone || !every) return;
    isLooking = true;
    let pause = AFTER_NONE;
    try {
      const answer = await fetch(location.href, {
        cache: "no-store",
        headers: { "X-Page": page },
        signal: AbortSignal.timeout(PATIENCE),
      });
      const text = await answer.text();
      const fate = FATES[answer.headers.get("X-Fate")];
      if (fate) {
        fate(name, text);
      } else if (answer.redirected || [403, 404].includes(answer.status)) {
        location.reload();
      } else if (answer.ok) {
        show(new DOMParser().parseFromString(text, "text/html"));
        pause = Number(document.body.dataset.every);
      } else {
        throw new Error(`status ${answer.status}`);
      }
      hear();
    } catch {
      // A page that is being left has its questions cut off, too.
      setTimeout(miss, 300);
    }
    isLooking = false;
    plan(pause);
  };

  setClock(document);
  makeTabs(document);
  setInterval(() => document.hidden || countOn(document), 1000);
  document.addEventListener("visibilitychange", () => plan(0));
  if (document.body.dataset.every) plan(Number(document.body.dataset.every));
})();
