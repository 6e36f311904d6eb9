// The script of bootd's dashboard. Pages work without it; with it they stay
// true by themselves: when something has happened the page is fetched again and
// what differs is put in. Nothing about any page is described here twice.
"use strict";
(() => {
  const $ = (s, in_ = document) => in_.querySelector(s);
  const $$ = (s, in_ = document) => [...in_.querySelectorAll(s)];
  const body = document.body;
  document.documentElement.classList.add("js");

  // ---- putting in what differs ----

  // morph makes the element old like the element next. What a person does with
  // the page stays: focus, what is typed, what is folded out.
  function morph(old, next) {
    if (old.isEqualNode(next)) return;
    for (const { name, value } of [...next.attributes]) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (next.hasAttribute(name) || (name === "open" && old.tagName === "DETAILS")) continue;
      old.removeAttribute(name);
    }
    if (old.tagName === "INPUT" || old.tagName === "SELECT") {
      if (old !== document.activeElement && old.tagName === "INPUT") old.value = next.getAttribute("value") || "";
      return;
    }
    children(old, next);
  }

  // keyOf names an element among its siblings.
  const keyOf = (n) => (n.nodeType === 1 ? n.dataset.key || n.id || "" : "");

  function children(old, next) {
    const keyed = new Map();
    for (const c of old.childNodes) if (keyOf(c)) keyed.set(keyOf(c), c);
    let at = old.firstChild;
    for (const n of [...next.childNodes]) {
      const key = keyOf(n);
      let o = key ? keyed.get(key) : at;
      if (!key) while (o && keyOf(o) && nextHas(next, keyOf(o))) o = o.nextSibling;
      if (o && o.nodeType === n.nodeType && o.nodeName === n.nodeName && keyOf(o) === key) {
        if (o !== at) old.insertBefore(o, at); else at = at.nextSibling;
        if (o.nodeType === 1) morph(o, n); else if (o.data !== n.data) o.data = n.data;
        continue;
      }
      old.insertBefore(document.importNode(n, true), at);
    }
    while (at) { const gone = at; at = at.nextSibling; gone.remove(); }
  }

  function nextHas(next, key) {
    for (const c of next.childNodes) if (keyOf(c) === key) return true;
    return false;
  }

  // ---- fetching the page again ----

  let skew = Number(body.dataset.now) - Date.now();
  let running = null, wanted = false, held = false, last = 0;

  async function fetchPage(url, signal) {
    const r = await fetch(url, { credentials: "same-origin", headers: { Accept: "text/html" }, signal });
    if (r.redirected && new URL(r.url).pathname === "/login") { location.href = r.url; throw new Error("logged out"); }
    return { ok: r.ok, doc: new DOMParser().parseFromString(await r.text(), "text/html") };
  }

  // refresh makes the page what it is now, or what another URL is.
  async function refresh(url = location.href) {
    if (running) running.abort();
    const mine = running = new AbortController();
    wanted = false;
    try {
      const { ok, doc } = await fetchPage(url, mine.signal);
      if (!ok || mine.signal.aborted || !doc.body.dataset.now) return;
      skew = Number(doc.body.dataset.now) - Date.now();
      const line = $("tr.at");
      const key = line && line.dataset.key;
      for (const id of ["main", "foot"]) { const n = doc.getElementById(id); if (n) morph(document.getElementById(id), n); }
      const nav = $("#top nav");
      if (nav) morph(nav, $("#top nav", doc));
      document.title = doc.title;
      if (key) { const again = $(`tr[data-key="${CSS.escape(key)}"]`); if (again) again.classList.add("at"); }
      tick();
      last = Date.now();
    } catch (e) {
      if (e.name !== "AbortError") lost(true);
    } finally {
      if (running === mine) running = null;
    }
  }

  // soon refreshes in a moment, and not more often than twice a second.
  function soon() {
    if (wanted || held || document.hidden) { if (document.hidden) wanted = true; return; }
    wanted = true;
    setTimeout(() => { if (!held && !document.hidden && !$("#ask").open) refresh(); else wanted = true; }, Math.max(60, 500 - (Date.now() - last)));
  }

  const pulse = $("#pulse");
  function lost(yes) {
    if (!pulse) return;
    pulse.classList.toggle("lost", yes);
    if (!held) $("span", pulse).textContent = yes ? "not connected" : "live";
  }

  function hold(yes) {
    if (!pulse) return;
    held = yes;
    pulse.setAttribute("aria-pressed", String(!yes));
    $("span", pulse).textContent = yes ? "held" : "live";
    if (!yes) refresh();
  }

  if (body.dataset.live && window.EventSource) {
    pulse.hidden = false;
    pulse.addEventListener("click", () => hold(!held));
    const source = new EventSource("/live");
    let opened = false;
    source.onopen = () => { lost(false); if (opened) soon(); opened = true; };
    source.onerror = () => lost(true);
    source.onmessage = (e) => {
      const mine = body.dataset.live;
      const macs = e.data.trim().split(" ");
      if (mine !== "*" && macs[0] !== "*" && !macs.includes(mine)) return;
      pulse.classList.remove("beat"); void pulse.offsetWidth; pulse.classList.add("beat");
      soon();
    };
    // What no event tells: nodes of the swarm, a changed configuration, time.
    setInterval(() => { if (Date.now() - last > 5000) soon(); }, 2500);
    document.addEventListener("visibilitychange", () => { if (!document.hidden && !held) { wanted = false; soon(); } });
  }

  // ---- what changes with time alone ----

  const short = (ms) => {
    const s = ms / 1000;
    if (ms < 0) return "0s";
    if (s < 1) return `${Math.floor(ms)}ms`;
    if (s < 10) return `${s.toFixed(1)}s`;
    if (s < 60) return `${Math.floor(s)}s`;
    if (s < 3600) return `${Math.floor(s / 60)}m${String(Math.floor(s) % 60).padStart(2, "0")}s`;
    return `${Math.floor(s / 3600)}h${String(Math.floor(s / 60) % 60).padStart(2, "0")}m`;
  };
  const coarse = (ms) => {
    const s = Math.floor(ms / 1000);
    if (s < 1) return "now";
    if (s < 60) return `${s}s ago`;
    if (s < 3600) return `${Math.floor(s / 60)}m ago`;
    if (s < 172800) return `${Math.floor(s / 3600)}h ago`;
    return `${Math.floor(s / 86400)}d ago`;
  };

  // tick lets bars under way grow, and keeps "ago" true.
  function tick() {
    if (held) return;
    const now = Date.now() + skew;
    for (const t of $$("[data-ago]")) { const s = coarse(now - Number(t.dataset.ago)); if (t.textContent !== s) t.textContent = s; }
    for (const t of $$("[data-since]")) t.textContent = short(now - Number(t.dataset.since));
    const bars = $$("[data-start][data-total]");
    // Bars below one another have one axis.
    const axes = new Map();
    const axisOf = (b) => b.closest("table.boots") || b.closest("#fall") || b;
    for (const b of bars) {
      const grown = b.hasAttribute("data-growing") ? now - Number(b.dataset.start) : 0;
      const axis = axisOf(b);
      axes.set(axis, Math.max(axes.get(axis) || 0, Number(b.dataset.total), grown));
    }
    for (const b of bars) {
      const axis = axisOf(b);
      const total = axes.get(axis);
      if (total <= Number(b.dataset.total)) continue;
      const share = (ms) => `${(100 * ms / total).toFixed(3)}%`;
      for (const e of $$("[data-a]", b)) {
        const a = Number(e.dataset.a);
        const end = e.hasAttribute("data-now") && b.hasAttribute("data-growing") ? now - Number(b.dataset.start) : Number(e.dataset.b);
        if (e.tagName === "circle") { e.setAttribute("cx", share(a)); continue; }
        e.setAttribute("x", share(a));
        if (e.tagName === "rect") e.setAttribute("width", share(Math.max(0, end - a)));
      }
    }
  }
  setInterval(tick, matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 200);

  // ---- filter ----

  document.addEventListener("input", (e) => {
    if (!e.target.closest("#filter")) return;
    clearTimeout(filtering);
    filtering = setTimeout(() => go(e.target.form), 90);
  });
  let filtering = 0;
  function go(form) {
    const u = new URL(form.getAttribute("action"), location.href);
    for (const [k, v] of new FormData(form)) if (v) u.searchParams.set(k, v);
    history.replaceState(null, "", u);
    refresh(u.href);
  }
  document.addEventListener("submit", (e) => { if (e.target.id === "filter") { e.preventDefault(); go(e.target); } });

  // ---- asking before an order is given ----

  const ask = $("#ask");
  document.addEventListener("click", async (e) => {
    const a = e.target.closest("a");
    if (!a) return;
    if (a.hasAttribute("data-close") && ask.open) { e.preventDefault(); ask.close(); return; }
    if (!a.hasAttribute("data-ask") || e.metaKey || e.ctrlKey || e.shiftKey || !ask.showModal) return;
    e.preventDefault();
    try {
      const { doc } = await fetchPage(a.href);
      const q = doc.getElementById("question");
      if (!q) { location.href = a.href; return; }
      ask.replaceChildren(document.importNode(q, true));
      ask.showModal();
      const first = $("select, input", ask) || $("button", ask);
      if (first) first.focus();
    } catch { location.href = a.href; }
  });
  ask.addEventListener("close", () => { ask.replaceChildren(); if (wanted) { wanted = false; soon(); } });
  ask.addEventListener("click", (e) => { if (e.target === ask) ask.close(); });

  // ---- keys ----

  let chord = 0;
  const places = { h: "/", m: "/machines", n: "/networks", s: "/swarm", e: "/events" };
  document.addEventListener("keydown", (e) => {
    if (e.metaKey || e.ctrlKey || e.altKey || $("dialog[open]")) return;
    const typing = e.target.closest("input, select, textarea");
    if (typing) { if (e.key === "Escape") { e.target.blur(); e.preventDefault(); } return; }
    if (Date.now() - chord < 1500 && places[e.key]) { location.href = places[e.key]; return; }
    chord = 0;
    switch (e.key) {
      case "/": { const q = $("#q"); if (q) { e.preventDefault(); q.focus(); q.select(); } else location.href = "/machines"; break; }
      case "g": chord = Date.now(); break;
      case "p": hold(!held); break;
      case "?": $("#help").showModal(); break;
      case "j": case "k": step(e.key === "j" ? 1 : -1); break;
      case "Enter": { const a = $("tr.at a"); if (a && !e.target.closest("a, button, summary")) a.click(); break; }
    }
  });
  function step(by) {
    const lines = $$("table.lines tbody tr:not(.group)");
    if (!lines.length) return;
    const i = lines.findIndex((l) => l.classList.contains("at"));
    const to = lines[Math.min(lines.length - 1, Math.max(0, i < 0 ? 0 : i + by))];
    if (i >= 0) lines[i].classList.remove("at");
    to.classList.add("at");
    const a = $("a", to);
    if (a) a.focus({ preventScroll: true });
    to.scrollIntoView({ block: "nearest" });
  }
  tick();
})();
