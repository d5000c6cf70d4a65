// Copy buttons, tabs, and pages that follow what is under way. Every page works without it.
(() => {
  "use strict";
  document.documentElement.classList.add("js");

  const said = (button, text) => {
    const label = button.dataset.label || (button.dataset.label = button.textContent);
    const name = button.getAttribute("aria-label") || label;
    button.textContent = text;
    document.getElementById("said").textContent = `${text}: ${name}`;
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
    const element = button && document.getElementById(button.dataset.copy);
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

  const makeTabs = (box, number) => {
    const panels = [...box.querySelectorAll(":scope > section")];
    const list = document.createElement("div");
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", box.dataset.tabs);
    const show = (index, focus) => tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === index));
      tab.tabIndex = i === index ? 0 : -1;
      panels[i].hidden = i !== index;
      if (focus && i === index) tab.focus();
    });
    const tabs = panels.map((panel, i) => {
      const heading = panel.querySelector("h3");
      const tab = document.createElement("button");
      tab.type = "button";
      tab.id = `tab-${number}-${i}`;
      tab.textContent = heading.textContent;
      tab.setAttribute("role", "tab");
      panel.id = panel.id || `panel-${number}-${i}`;
      tab.setAttribute("aria-controls", panel.id);
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      panel.tabIndex = 0;
      heading.hidden = true;
      tab.addEventListener("click", () => show(i));
      list.append(tab);
      return tab;
    });
    list.addEventListener("keydown", (event) => {
      const now = tabs.indexOf(document.activeElement);
      const to = {
        ArrowRight: (now + 1) % tabs.length,
        ArrowLeft: (now + tabs.length - 1) % tabs.length,
        Home: 0,
        End: tabs.length - 1,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      show(to, true);
    });
    box.prepend(list);
    show(0);
  };
  document.querySelectorAll("[data-tabs]").forEach(makeTabs);

  // What a field holds to begin with may differ from look to look and is no news.
  const news = (element) => element.innerHTML.replace(/ value="[^"]*"/g, "");
  const seen = new WeakMap();
  document.querySelectorAll("[data-live]").forEach((e) => seen.set(e, news(e)));

  // What a user did to a region: rows that are open, fields that were filled in, the focus.
  const keep = (region) => {
    const open = [...region.querySelectorAll("details[id]")].map((d) => [d.id, d.open]);
    const filled = [...region.querySelectorAll("input[id]")]
      .filter((i) => i.value !== i.defaultValue)
      .concat([...region.querySelectorAll("select[id]")])
      .map((i) => [i.id, i.value]);
    const focus = region.contains(document.activeElement) ? document.activeElement.id : "";
    return () => {
      const find = (id) => document.getElementById(id);
      open.forEach(([id, is]) => { if (find(id)) find(id).open = is; });
      filled.forEach(([id, value]) => { if (find(id)) find(id).value = value; });
      if (focus && find(focus)) find(focus).focus({ preventScroll: true });
    };
  };

  const swap = (page) => {
    const busy = "data-under-way";
    document.body.toggleAttribute(busy, page.body.hasAttribute(busy));
    if (document.title !== page.title) document.title = page.title;
    document.querySelectorAll("[data-live]").forEach((region) => {
      const fresh = page.getElementById(region.id);
      if (!fresh || news(fresh) === seen.get(region)) return;
      seen.set(region, news(fresh));
      const restore = keep(region);
      region.replaceChildren(...fresh.childNodes);
      restore();
    });
  };

  const follow = async () => {
    if (!document.body.hasAttribute("data-under-way")) return;
    let pause = 1000;
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { cache: "no-store" });
        if (answer.redirected || answer.status === 404) return location.reload();
        if (answer.ok) {
          swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
        } else {
          pause = 5000;
        }
      } catch {
        pause = 5000;
      }
    }
    setTimeout(follow, pause);
  };
  setTimeout(follow, 1000);
})();
