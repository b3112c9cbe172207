// The dashboard's script: refreshes parts of the overview, and runs code through the public API.
// Pages say the same without it. Text from outside is put in as text (textContent), never as markup.

const REFRESH_MS = 3000;
// What is kept of an output on the page; the API has the rest.
const MAX_SHOWN = 1 << 20;
// How often a stream that broke off is taken up again.
const MAX_RETRIES = 5;
const RETRY_MS = 1000;

const find = (selector, within = document) => within.querySelector(selector);

function make(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Asks for a part of a page; without a session it leads to the form that begins one.
async function page(path) {
  const response = await fetch(path, { redirect: "manual" });
  if (response.type === "opaqueredirect") {
    location.assign("/login");
    throw new Error("the session is over");
  }
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

// Times in the reader's own zone; the exact one stays in the element.
function localTimes(within) {
  for (const time of within.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const today = at.toDateString() === new Date().toDateString();
    time.title = time.dateTime;
    time.textContent = today ? at.toLocaleTimeString() : at.toLocaleString();
  }
}

// --- the overview ---

const refreshed = find("[data-refresh]");
const liveState = find("#live-state");
let timer = 0;
let refreshing = false;

function tellLive(className, text) {
  liveState.hidden = false;
  liveState.className = `live ${className}`;
  if (liveState.textContent !== text) liveState.textContent = text;
}

// What the reader has in hand stays: a section with a selection in it waits for the next time.
function inHand(section) {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(section, true);
}

const before = new Map();

function swap(fresh) {
  for (const section of fresh.querySelectorAll("section[id]")) {
    const old = document.getElementById(section.id);
    if (!old || before.get(section.id) === section.outerHTML || inHand(old)) continue;
    before.set(section.id, section.outerHTML);
    const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    const part = document.importNode(section, true);
    localTimes(part);
    old.replaceWith(part);
    if (focused) find(`a[href="${CSS.escape(focused)}"]`, part)?.focus();
  }
}

async function refresh() {
  clearTimeout(timer);
  if (refreshing || document.hidden) return;
  refreshing = true;
  try {
    swap(await page(refreshed.dataset.refresh));
    tellLive("", "live");
  } catch {
    tellLive("stale", "no answer; trying again");
  }
  refreshing = false;
  timer = setTimeout(refresh, REFRESH_MS);
}

if (refreshed) {
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      clearTimeout(timer);
      tellLive("idle", "paused");
    } else {
      refresh();
    }
  });
  tellLive("", "live");
  timer = setTimeout(refresh, REFRESH_MS);
}

// --- a run's output ---

class Output {
  constructor(element) {
    this.element = element;
    this.clear();
  }

  clear() {
    this.element.replaceChildren();
    this.last = "";
    this.text = null;
    this.shown = 0;
    this.decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
  }

  // A character may be in two parts of a stream, so bytes go through one decoder for each stream.
  write(stream, data) {
    const bytes = data.base64 === undefined
      ? new TextEncoder().encode(data.text ?? "")
      : Uint8Array.from(atob(data.base64), (char) => char.charCodeAt(0));
    const text = this.decoders[stream].decode(bytes, { stream: true });
    if (text === "" || this.shown > MAX_SHOWN) return;
    this.shown += text.length;
    const atEnd = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < 40;
    if (this.last !== stream) {
      const chunk = make("div", `chunk ${stream}`, "");
      const pre = make("pre", "", "");
      this.text = document.createTextNode("");
      pre.append(this.text);
      chunk.append(make("span", "stream", stream), pre);
      this.element.append(chunk);
      this.last = stream;
    }
    this.text.appendData(text);
    if (this.shown > MAX_SHOWN) this.element.append(make("p", "hint", "More was written; the run's page and the API have it."));
    if (atEnd) this.element.scrollTop = this.element.scrollHeight;
  }
}

// Server-sent events (WHATWG HTML, "Interpreting an event stream"), read by fetch.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { name: "message", id: null, data: [] };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data.length > 0) yield { ...event, data: JSON.parse(event.data.join("\n")) };
        event = { name: "message", id: null, data: [] };
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "event") event.name = text;
      if (field === "id") event.id = text;
      if (field === "data") event.data.push(text);
    }
  }
}

// What is wrong, in words.
async function problemOf(response) {
  try {
    const problem = await response.json();
    const cause = problem.cause ?? problem.title ?? response.statusText;
    return problem.remedy ? `${cause}. Remedy: ${problem.remedy}` : cause;
  } catch {
    return `the service answers ${response.status}`;
  }
}

// Follows a run to its end; takes up the stream again where it broke off.
async function follow(id, hear) {
  let last = null;
  for (let tries = 0; tries <= MAX_RETRIES; tries += 1) {
    if (tries > 0) await pause(RETRY_MS);
    try {
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const response = await fetch(`/v1/runs/${id}/events`, { headers });
      if (response.status === 204) return;
      if (!response.ok) throw new Error(await problemOf(response));
      for await (const event of events(response.body)) {
        tries = 0;
        if (event.id !== null) last = event.id;
        hear(event.name, event.data);
        if (event.name === "ended") return;
        if (event.name === "problem") break;
      }
    } catch (error) {
      if (tries === MAX_RETRIES) throw error;
    }
  }
  throw new Error("the stream of the run broke off");
}

// What is on record of a run that is over.
async function summary(id) {
  for (let tries = 0; ; tries += 1) {
    const found = find("#summary", await page(`/runs/${id}`));
    if (found.dataset.final === "true" || tries === MAX_RETRIES) {
      const part = document.importNode(found, true);
      localTimes(part);
      return part;
    }
    await pause(RETRY_MS / 4);
  }
}

const status = find("#run-status");
const stop = find("#run-stop");
const followed = find("[data-follow]");
let current = null;

function tell(state, ...more) {
  status.replaceChildren(make("span", `state state-${state}`, state), ...more);
}

// To the page of a run, where this is another page.
function link(id) {
  if (followed) return "";
  const anchor = make("a", "id", `…${id.slice(-8)}`);
  anchor.href = `/runs/${id}`;
  return anchor;
}

function ended(id, data) {
  if (data.ending) {
    const good = data.ending.exit_code === 0;
    const code = make("span", "", "exit code ");
    code.append(make("strong", `exit ${good ? "ok" : "bad"}`, String(data.ending.exit_code)));
    tell("done", code, link(id));
  } else if (data.problem) {
    // Why is in the summary.
    tell("failed", link(id));
  } else {
    tell(data.reason ?? "failed", link(id));
  }
}

async function watch(id, output) {
  current = id;
  if (stop) stop.disabled = false;
  try {
    await follow(id, (name, data) => {
      if (name === "started") tell("running", make("span", "dim", `on ${data.host}, from ${data.origin}`), link(id));
      if (name === "stdout" || name === "stderr") output.write(name, data);
      if (name === "gap") output.write("stderr", { text: "[a part of the output is gone]\n" });
      if (name === "ended") ended(id, data);
    });
  } finally {
    current = null;
    if (stop) stop.disabled = true;
  }
}

stop?.addEventListener("click", async () => {
  if (current === null) return;
  stop.disabled = true;
  const response = await fetch(`/v1/runs/${current}`, { method: "DELETE" });
  if (!response.ok) status.append(make("span", "problem", await problemOf(response)));
});

// --- the box ---

const form = find("#run-form");

async function submit(output) {
  const stdin = find("#run-stdin").value;
  const body = {
    lang: find("#run-lang").value,
    template: find("#run-template").value,
    code: find("#run-code").value,
    ...(stdin === "" ? {} : { stdin }),
  };
  const response = await fetch("/v1/runs", {
    method: "POST",
    headers: { "Content-Type": "application/json", Prefer: "respond-async" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(await problemOf(response));
  const { id } = await response.json();
  tell("queued", link(id));
  refresh();
  await watch(id, output);
  find("#run-summary").replaceChildren(await summary(id));
}

if (form) {
  const start = find("#run-start");
  const output = new Output(find("#run-output"));
  start.disabled = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (start.disabled) return;
    start.disabled = true;
    find("#run-result").hidden = false;
    find("#run-summary").replaceChildren();
    output.clear();
    status.replaceChildren(make("span", "dim", "asking"));
    try {
      await submit(output);
    } catch (error) {
      status.append(make("span", "problem", error.message));
    }
    start.disabled = false;
    refresh();
  });
  find("#run-code").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
}

// --- the page of a run that goes on ---

if (followed) {
  const id = followed.dataset.follow;
  // The stream begins with the first event, and so does the page's output then.
  watch(id, new Output(find("#run-output")))
    .then(() => summary(id))
    .then((part) => {
      find("#summary").replaceWith(part);
      stop.hidden = true;
    })
    .catch((error) => status.append(make("span", "problem", error.message)));
}

localTimes(document);
