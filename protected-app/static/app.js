// The file drop's page: lists, uploads with progress, deletes. It speaks to /api/files only.

import { fileSize, percent, say, when } from "./words.js";

const $ = (id) => document.getElementById(id);
const max = Number(document.body.dataset.max);
// The end by this computer's clock, which may differ from the gateway's.
const expires = Date.now() + (new Date(document.body.dataset.expires) - new Date(document.body.dataset.now));

// short keeps a long name's two ends. A name has its own direction in a sentence (UAX #9, isolates).
const short = (name) => {
  const c = [...name];
  return isolated(c.length > 40 ? `${c.slice(0, 24).join("")}…${c.slice(-13).join("")}` : name);
};
const isolated = (name) => `\u2068${name}\u2069`;

function tell(text, bad = false) {
  $("say").textContent = text;
  $("say").classList.toggle("bad", bad);
}

// ask sends a request and gives its JSON; its errors carry the server's message.
async function ask(path, options = {}) {
  let r;
  try {
    // A redirect leads to the sign-in page, which is another origin.
    r = await fetch(path, { cache: "no-store", redirect: "manual", ...options });
  } catch {
    throw new Error(say("drop.silent"));
  }
  if (r.type === "opaqueredirect") throw problem(401);
  if (r.status === 204) return null;
  const body = await r.json().catch(() => ({}));
  if (!r.ok) throw problem(r.status, body);
  return body;
}

function problem(status, body) {
  if (status === 401) ended();
  return new Error(body?.error?.message ?? say("drop.answered", { status }));
}

// ended says that the session is over, and offers the way to a new one and back here.
let over = false;
function ended() {
  if (over) return;
  over = true;
  document.body.classList.add("over-now");
  $("left").textContent = say("drop.signed_out");
  $("left").classList.add("soon");
  $("ended").querySelector("a").href = `http://${location.hostname}/?next=${encodeURIComponent(location.origin + "/")}`;
  $("ended").hidden = false;
  if ($("sure").open) $("sure").close("no");
  tell("");
}

// show draws the list, but only if it has changed: who is on a button with the keyboard stays there.
let shown = "";
function show(files) {
  const now = JSON.stringify(files);
  if (now === shown) return;
  shown = now;
  $("count").textContent = files.length ? files.length : "";
  $("empty").hidden = files.length > 0;
  $("files").replaceChildren(...files.map((f) => {
    const li = document.createElement("li");
    const a = document.createElement("a");
    a.href = `/api/files/${f.id}`;
    a.textContent = f.name;
    a.dir = "auto";
    a.setAttribute("download", f.name);
    const m = document.createElement("span");
    m.className = "meta";
    m.textContent = `${fileSize(f.size)} · ${f.mine ? say("drop.you") : f.by} · ${when(new Date(f.at))}`;
    li.append(a, m);
    if (f.mine) {
      const b = document.createElement("button");
      b.className = "quiet";
      b.textContent = say("drop.delete");
      b.setAttribute("aria-label", say("drop.delete_named", { name: isolated(f.name) }));
      b.addEventListener("click", () => remove(f));
      li.append(b);
    }
    return li;
  }));
}

async function refresh() {
  try {
    show((await ask("/api/files")).files);
  } catch (e) {
    if (!over) tell(e.message, true);
  }
}

async function remove(f) {
  $("sure-text").textContent = say("drop.sure", { name: isolated(f.name) });
  $("sure").returnValue = "no";
  $("sure").showModal();
  await new Promise((done) => $("sure").addEventListener("close", done, { once: true }));
  if ($("sure").returnValue !== "yes") return;
  try {
    await ask(`/api/files/${f.id}`, { method: "DELETE" });
    tell(say("drop.deleted", { name: short(f.name) }));
  } catch (e) {
    if (!over) tell(e.message, true);
  }
  await refresh();
  $("pick").focus({ preventScroll: true });
}

// upload uses XMLHttpRequest, since fetch does not report the progress of a body.
function upload(file) {
  const li = document.createElement("li");
  const name = document.createElement("span");
  name.className = "name";
  name.textContent = file.name;
  name.dir = "auto";
  const state = document.createElement("span");
  state.className = "state";
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = 0;
  bar.setAttribute("aria-label", say("drop.upload_of", { name: isolated(file.name) }));
  const stop = document.createElement("button");
  stop.className = "quiet";
  stop.textContent = say("drop.cancel");
  stop.setAttribute("aria-label", say("drop.cancel_named", { name: isolated(file.name) }));
  li.append(name, stop, bar, state);
  $("uploads").append(li);

  return new Promise((done) => {
    const fail = (text) => {
      state.textContent = text;
      state.classList.add("bad");
      bar.remove();
      stop.textContent = say("drop.dismiss");
      stop.setAttribute("aria-label", say("drop.dismiss_named", { name: isolated(file.name) }));
      stop.onclick = () => { li.remove(); $("pick").focus(); };
      state.setAttribute("role", "alert");
      done();
    };
    if (file.size > max) return fail(say("drop.too_large", { size: max }));
    const x = new XMLHttpRequest();
    stop.onclick = () => x.abort();
    x.open("POST", `/api/files?name=${encodeURIComponent(file.name)}`);
    x.upload.addEventListener("progress", (e) => {
      if (!e.lengthComputable) return;
      bar.value = e.loaded / e.total;
      state.textContent = say("drop.progress", { part: percent(bar.value), size: e.total });
    });
    x.addEventListener("load", () => {
      let body = {};
      try { body = JSON.parse(x.responseText); } catch { /* the status will do */ }
      if (x.status !== 201) return fail(problem(x.status, body).message);
      li.remove();
      tell(say("drop.arrived", { name: short(file.name) }));
      refresh().then(done);
    });
    x.addEventListener("abort", () => {
      li.remove();
      tell(say("drop.cancelled", { name: short(file.name) }));
      $("pick").focus();
      done();
    });
    x.addEventListener("error", () => fail(say("drop.broken_off")));
    x.send(file);
  });
}

async function uploadAll(files) {
  for (const f of files) await upload(f); // one after the other, so that each is quick
}

$("pick").addEventListener("change", (e) => {
  uploadAll([...e.target.files]);
  e.target.value = "";
});
for (const t of ["dragenter", "dragover"]) {
  $("drop").addEventListener(t, (e) => { e.preventDefault(); $("drop").classList.add("over"); });
}
for (const t of ["dragleave", "drop"]) {
  $("drop").addEventListener(t, (e) => { e.preventDefault(); $("drop").classList.remove("over"); });
}
$("drop").addEventListener("drop", (e) => uploadAll([...e.dataTransfer.files]));

function tick() {
  const left = expires - Date.now();
  if (left <= 0) return ended();
  if (over) return;
  const s = Math.ceil(left / 1000);
  const min = Math.floor(s / 60);
  $("left").textContent = say(min >= 60 ? "drop.left_hours" : min > 0 ? "drop.left_minutes" : "drop.left_seconds",
    { hours: Math.floor(min / 60), minutes: min >= 60 ? min % 60 : min, seconds: s });
  $("left").classList.toggle("soon", min < 5);
  setTimeout(tick, Math.min(left, min > 1 ? 15000 : 1000));
}
tick();
refresh();
setInterval(() => { if (!document.hidden && !over) refresh(); }, 15000);
document.addEventListener("visibilitychange", () => { if (!document.hidden && !over) { tick(); refresh(); } });
