// SPDX-License-Identifier: Apache-2.0
"use strict";

const element = (id) => document.getElementById(id);
// Every two seconds, so two minutes.
const readings = 60;
const state = { token: "", model: null, cluster: null, paces: [], last: null, history: new Map(), asking: null, answer: null, layers: [], fault: "" };

// Asking the gateway

class Refusal extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function ask(path, body, signal) {
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (state.token) headers.authorization = "Bearer " + state.token;
  const answer = await fetch(path, { method: body === undefined ? "GET" : "POST", headers, body: body === undefined ? undefined : JSON.stringify(body), signal });
  if (answer.ok) { element("token-form").hidden = true; return answer; }
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 401) element("token-form").hidden = false;
  throw new Refusal(answer.status, said.message || (said.error && said.error.message) || said.error || "status " + answer.status);
}

/// Shows an error, or takes back the last one of the same origin. The element is an alert, so it changes only where the words do.
function complain(origin, error) {
  if (!error && state.fault !== origin) return;
  state.fault = error ? origin : "";
  const place = element("problem");
  const said = !error ? "" : error instanceof Refusal ? error.message : "The gateway cannot be reached: " + error.message;
  place.hidden = !error;
  if (place.textContent !== said) place.textContent = said;
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
  }
}

// Numbers and words

const count = (value) => Number(value || 0).toLocaleString("en");
const time = (microseconds) => {
  const value = Number(microseconds || 0);
  return value >= 1e6 ? (value / 1e6).toFixed(2) + " s" : value >= 1e3 ? (value / 1e3).toFixed(1) + " ms" : value + " µs";
};
const words = (name) => name.toLowerCase().replaceAll("_", " ");
const layerName = (layer) => words(layer.stack || "") + " block " + (layer.layer || 0);
const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
// The golden angle keeps neighbours apart, however many experts there are.
const hue = (expert) => (expert * 137.508) % 360;
const colour = (expert) => `hsl(${hue(expert)} 70% ${dark() ? 60 : 42}%)`;

function fill(list, pairs) {
  list.replaceChildren(...pairs.map(([name, value]) => {
    const box = document.createElement("div"), term = document.createElement("dt"), data = document.createElement("dd");
    term.textContent = name;
    data.textContent = value;
    box.append(term, data);
    return box;
  }));
}

function rows(body, lines) {
  body.replaceChildren(...lines.map((cells) => {
    const row = document.createElement("tr");
    cells.forEach((cell, index) => {
      const place = document.createElement(index === 0 ? "th" : "td");
      if (index === 0) place.scope = "row";
      const [text, style] = Array.isArray(cell) ? cell : [cell, ""];
      place.textContent = text;
      if (style) place.className = style;
      row.append(place);
    });
    return row;
  }));
}

// Ask

function request() {
  const parameters = { maxNewTokens: Number(element("most").value) };
  const beams = Number(element("beams").value);
  if (beams > 1) parameters.numBeams = beams;
  if (element("sample").checked) {
    parameters.doSample = true;
    parameters.temperature = Number(element("temperature").value);
    parameters.topP = Number(element("top-p").value);
    if (element("seed").value) parameters.seed = element("seed").value;
  } else {
    parameters.doSample = false;
  }
  return { text: element("text").value, parameters };
}

/// The pieces of a text between its gaps, and what an answer puts into each gap.
function fills(text, answer) {
  const found = new Map();
  let current = null;
  for (const part of answer.split(/(<extra_id_\d+>|<\/s>|<pad>)/)) {
    if (/^<extra_id_/.test(part)) { current = part; if (!found.has(part)) found.set(part, ""); }
    else if (/^<(\/s|pad)>$/.test(part)) continue;
    else if (current !== null) found.set(current, found.get(current) + part);
  }
  return text.split(/(<extra_id_\d+>)/).map((part) => /^<extra_id_/.test(part) ? { gap: part, words: found.get(part) } : { text: part });
}

function showFilled(text, answer, isComplete) {
  const place = element("filled");
  const parts = fills(text, answer);
  if (!parts.some((part) => part.gap)) { place.textContent = answer; return; }
  place.replaceChildren(...parts.map((part) => {
    if (!part.gap) return document.createTextNode(part.text);
    const mark = document.createElement("mark");
    mark.textContent = part.words === undefined ? part.gap : part.words.trim() || (isComplete ? "(nothing)" : "…");
    return mark;
  }));
}

async function askModel(event) {
  event.preventDefault();
  if (state.asking) state.asking.abort();
  const asking = new AbortController();
  state.asking = asking;
  const body = request();
  element("stop").disabled = false;
  element("routes").hidden = true;
  element("cost").textContent = "";
  element("filled").setAttribute("aria-busy", "true");
  element("filled").textContent = "…";
  complain("ask", null);
  let text = "", complete = false;
  const tokens = [];
  try {
    const answer = await ask("v1/generate_stream", { ...body, returnRoutes: true }, asking.signal);
    for await (const event of events(answer)) {
      if (event.error) throw new Refusal(500, event.error.message);
      if (event.token) {
        tokens.push(event.token.text || "");
        text += event.token.text || "";
        showFilled(body.text, text, false);
      }
      if (event.response) { complete = true; finish(body, event.response, tokens); }
    }
    if (!complete) throw new Refusal(500, "The gateway ended the answer before it was complete.");
  } catch (error) {
    if (error.name !== "AbortError") complain("ask", error);
    if (!text) element("filled").textContent = error.name === "AbortError" ? "Stopped." : "No answer.";
  } finally {
    if (state.asking === asking) {
      state.asking = null;
      element("stop").disabled = true;
      element("filled").setAttribute("aria-busy", "false");
    }
  }
}

function finish(body, response, tokens) {
  const generation = (response.generations || [])[0] || {};
  showFilled(body.text, generation.text || "", true);
  const usage = response.usage || {};
  const dropped = (usage.dropped || []).reduce((sum, drop) => sum + Number(drop.tokens || 0), 0);
  element("cost").textContent =
    `${count(usage.inputTokens)} tokens in, ${count(usage.outputTokens)} out; waited ${time(usage.queueMicroseconds)}, ` +
    `encoder ${time(usage.encodeMicroseconds)}, decoder ${time(usage.decodeMicroseconds)}; ` +
    (dropped ? `${count(dropped)} of ${count(usage.routedTokens)} routed tokens got no expert` : "no token was dropped") +
    (response.seed ? `; seed ${response.seed}` : "") + `. The model wrote: ${generation.text || ""}`;
  // A beam search streams no tokens, for a better beam may replace them. Their ids are in the answer.
  state.answer = tokens.length ? tokens : (generation.tokenIds || []).map((id) => "token " + id);
  const layers = [];
  for (const routes of [generation.decoderRoutes, response.encoderRoutes]) {
    if (routes) (routes.layers || []).forEach((layer, index) => layers.push({ routes, layer, index }));
  }
  element("routes").hidden = layers.length === 0;
  element("layer").replaceChildren(...layers.map((entry, index) => new Option(layerName({ stack: entry.routes.stack, layer: entry.layer }), index)));
  state.layers = layers;
  showRoutes();
}

const bytes = (text) => Uint8Array.from(atob(text || ""), (character) => character.charCodeAt(0));

function showRoutes() {
  const entry = state.layers[Number(element("layer").value) || 0];
  if (!entry) return;
  const { routes, index } = entry;
  const width = routes.layers.length;
  const experts = new DataView(bytes(routes.experts).buffer), odds = new DataView(bytes(routes.probabilities).buffer);
  const reasons = bytes(routes.dropReasons);
  const names = ["", "over capacity", "too late", "no host", "host busy", "bad reply"];
  const isDecoder = routes.stack === "DECODER";
  const chips = [];
  for (let token = 0; token < (routes.tokens || 0); token += 1) {
    const place = token * width + index;
    const expert = experts.getUint16(2 * place, true);
    const reason = reasons.length ? reasons[place] : 0;
    const chip = document.createElement("li"), name = document.createElement("b"), detail = document.createElement("small");
    name.textContent = isDecoder ? (token === 0 ? "start" : (state.answer[token - 1] || "").trim() || "·") : "input " + (token + 1);
    detail.textContent = reason ? `expert ${expert}: dropped, ${names[reason] || "lost"}` : `expert ${expert}, ${(100 * odds.getFloat32(4 * place, true)).toFixed(0)} %`;
    chip.style.borderLeftColor = colour(expert);
    if (reason) chip.classList.add("dropped");
    chip.append(name, detail);
    chips.push(chip);
  }
  element("chips").replaceChildren(...chips);
  element("route-note").textContent = isDecoder
    ? "Each box is a token that the decoder has read, with the expert that took it and the router's probability of it."
    : "Each box is a token of the input, in its order, the end of the text last.";
}

function showCalls() {
  const body = request();
  const json = JSON.stringify(body);
  const quote = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
  const bearer = state.token ? " -H 'authorization: Bearer '\"$TOKEN\"" : "";
  element("curl").textContent = `curl -s ${location.origin}/v1/generate -H 'content-type: application/json'${bearer} \\\n  -d ${quote(json)}`;
  const named = Object.entries(body.parameters).map(([name, value]) => {
    const snake = name.replace(/[A-Z]/g, (letter) => "_" + letter.toLowerCase());
    return `, ${snake}=${value === true ? "True" : value === false ? "False" : name === "seed" ? value : JSON.stringify(value)}`;
  }).join("");
  element("python").textContent = `${state.token ? "import os\n" : ""}from switchyard import Switchyard\n\nwith Switchyard("${location.hostname}:7400"${state.token ? ', token=os.environ["TOKEN"]' : ""}) as client:\n    print(client.generate(${JSON.stringify(body.text)}${named}).filled)`;
  const how = (location.protocol === "https:" ? "" : " -plaintext") + bearer;
  element("grpc").textContent = `grpcurl${how} -d ${quote(json)} ${location.hostname}:7400 switchyard.v1.Gateway/Generate`;
}

// Cluster

/// Keeps the last readings, whichever view is open.
function record() {
  const now = performance.now(), decoded = Number((state.cluster.gateway || {}).decodedTokens || 0);
  if (state.last) {
    state.paces.push(Math.max(0, decoded - state.last.decoded) / ((now - state.last.now) / 1000));
    if (state.paces.length > readings) state.paces.shift();
  }
  state.last = { now, decoded };
  (state.cluster.expertLoad || []).forEach((layer, index) => {
    const past = state.history.get(index) || [];
    past.push((layer.rowsPerSecond || []).map(Number));
    if (past.length > readings) past.shift();
    state.history.set(index, past);
  });
}

function showCluster() {
  const cluster = state.cluster;
  const load = cluster.gateway || {};
  const pace = state.paces.at(-1) || 0;
  fill(element("gateway"), [
    ["All experts have a host", cluster.complete ? "yes" : "no"], ["Tokens per second", pace.toFixed(1)],
    ["Waiting requests", `${count(load.queued)} of ${count(load.queueLimit)}`], ["Running", count(load.running)],
    ["Batch slots", `${count(load.usedSlots)} of ${count(load.batchSlots)}`], ["Tokens since the start", count(load.decodedTokens)],
    ["Up", duration(Number(load.uptimeSeconds || 0))], ["State", load.draining ? "draining" : "serving"],
  ]);
  const pools = cluster.pools || [];
  rows(element("hosts"), pools.flatMap((pool) => (pool.replicas || []).map((host) => [
    pool.name, host.address || "", [words(host.state || "unknown"), host.state === "READY" ? "ready" : "lost"],
    count(host.outstandingCalls), count(host.calls), count(host.failures), time(host.latencyP50Microseconds), time(host.latencyP99Microseconds),
  ])));
  element("reasons").replaceChildren(...pools.flatMap((pool) => (pool.replicas || []).filter((host) => host.detail).map((host) => {
    const reason = document.createElement("li");
    reason.textContent = `${host.address}: ${host.detail}`;
    return reason;
  })));
  rows(element("pools"), pools.map((pool) => [pool.name, count(pool.calls), count(pool.hedges), count(pool.hedgesWon), count(pool.retries), count(pool.droppedRows)]));
  const reasons = new Map();
  for (const drop of cluster.dropped || []) reasons.set(drop.reason, (reasons.get(drop.reason) || 0) + Number(drop.tokens || 0));
  element("drops").textContent = reasons.size
    ? [...reasons].map(([reason, tokens]) => `${words(reason)}: ${count(tokens)}`).join(", ") + ` of ${count(cluster.routedTokens)} routed tokens`
    : `None of ${count(cluster.routedTokens)} routed tokens.`;
  drawPace();
}

function duration(seconds) {
  const hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60;
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

/// The width of a canvas in pixels of the screen.
const pixels = (canvas) => Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));

function drawPace() {
  const canvas = element("pace"), context = canvas.getContext("2d");
  canvas.width = pixels(canvas);
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  const most = Math.max(1, ...state.paces);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--link");
  context.lineWidth = 2 * devicePixelRatio;
  context.beginPath();
  state.paces.forEach((pace, index) => {
    const x = canvas.width * (1 - (state.paces.length - 1 - index) / (readings - 1)), y = canvas.height - 4 - (canvas.height - 8) * pace / most;
    if (index) context.lineTo(x, y); else context.moveTo(x, y);
  });
  context.stroke();
  canvas.setAttribute("aria-label", `Decoded tokens per second: now ${(state.paces.at(-1) || 0).toFixed(1)}, at most ${most.toFixed(1)}`);
}

// Experts

const loads = (layer) => (element("measure").value === "total" ? layer.rows : layer.rowsPerSecond || layer.rows || []).map(Number);

function shade(context, values, y, width, height) {
  const most = Math.max(...values, 1e-9);
  const [low, high] = dark() ? [[27, 33, 43], [138, 184, 255]] : [[243, 245, 249], [11, 83, 184]];
  const image = context.createImageData(width, height);
  const apart = width / values.length >= 8;
  for (let x = 0; x < width; x += 1) {
    // Where there are more experts than pixels, a pixel shows the busiest of its experts.
    const from = Math.floor(x * values.length / width), to = Math.max(from + 1, Math.floor((x + 1) * values.length / width));
    // A gap between experts, where there is room for one.
    if (apart && x > 0 && Math.floor((x - 1) * values.length / width) < from) continue;
    let value = 0;
    for (let index = from; index < to; index += 1) value = Math.max(value, values[index] || 0);
    const part = Math.sqrt(value / most);
    for (let line = 0; line < height; line += 1) {
      const place = 4 * (line * width + x);
      for (let channel = 0; channel < 3; channel += 1) image.data[place + channel] = low[channel] + (high[channel] - low[channel]) * part;
      image.data[place + 3] = 255;
    }
  }
  context.putImageData(image, 0, y);
}

function showExperts() {
  const layers = state.cluster.expertLoad || [];
  const canvas = element("heat");
  const width = pixels(canvas), line = 24;
  canvas.width = width;
  canvas.height = Math.max(line, layers.length * line);
  canvas.style.height = canvas.height + "px";
  const context = canvas.getContext("2d");
  layers.forEach((layer, index) => shade(context, loads(layer), index * line + 1, width, line - 2));
  element("heat-names").replaceChildren(...layers.map((layer) => {
    const name = document.createElement("li");
    name.textContent = layerName(layer);
    return name;
  }));
  rows(element("balance"), layers.map((layer) => {
    const values = loads(layer), sum = values.reduce((one, other) => one + other, 0), mean = sum / Math.max(1, values.length);
    const order = values.map((value, index) => [value, index]).sort((one, other) => other[0] - one[0]).slice(0, 3);
    return [
      layerName(layer), count((layer.rows || []).reduce((one, other) => one + Number(other), 0)),
      sum ? order.filter(([value]) => value > 0).map(([value, index]) => `${index} (${(100 * value / sum).toFixed(0)} %)`).join(", ") : "none",
      mean ? (order[0][0] / mean).toFixed(1) + " times" : "", count(values.filter((value) => value === 0).length),
    ];
  }));
  if (!element("heat").matches(":hover")) {
    element("heat-note").textContent = layers.length ? "Point at an expert to see its load."
      : state.model && state.model.expertsPerLayer ? "No token has been routed yet." : "This model has no experts.";
  }
  const chosen = element("history-layer");
  if (chosen.options.length !== layers.length) chosen.replaceChildren(...layers.map((layer, index) => new Option(layerName(layer), index)));
  drawHistory();
}

function drawHistory() {
  const canvas = element("history"), past = state.history.get(Number(element("history-layer").value) || 0) || [];
  canvas.width = pixels(canvas);
  canvas.height = readings;
  const context = canvas.getContext("2d");
  past.forEach((values, index) => shade(context, values, readings - past.length + index, canvas.width, 1));
}

function pointAt(event) {
  const layers = (state.cluster && state.cluster.expertLoad) || [];
  const box = event.target.getBoundingClientRect();
  const layer = layers[Math.floor((event.clientY - box.top) / box.height * layers.length)];
  if (!layer) return;
  const values = loads(layer), expert = Math.min(values.length - 1, Math.floor((event.clientX - box.left) / box.width * values.length));
  const recent = element("measure").value !== "total";
  element("heat-note").textContent = `${layerName(layer)}, expert ${expert}: ${recent ? values[expert].toFixed(1) + " tokens per second" : count(values[expert]) + " tokens"}`;
}

// Model

/// Ascending numbers as spans: 0–3, 6.
function spans(numbers) {
  const found = [];
  for (const number of numbers) {
    const last = found.at(-1);
    if (last && last[1] + 1 === number) last[1] = number; else found.push([number, number]);
  }
  return found.map(([from, to]) => from === to ? String(from) : `${from}–${to}`).join(", ");
}

function showPlaces() {
  const model = state.model, same = (one) => (other) => one.stack === other.stack && (one.layer || 0) === (other.layer || 0);
  element("places-note").hidden = (model.sparseLayers || []).length > 0;
  rows(element("places"), (model.sparseLayers || []).map((layer) => [
    layerName(layer), `${count((layer.experts || []).length)} of ${count(model.expertsPerLayer)}`,
    (state.cluster.pools || []).flatMap((pool) => {
      const held = (pool.experts || []).find(same(layer));
      return held ? [`${pool.name}: ${spans(held.experts || [])}`] : [];
    }).join("; "),
  ]));
}

function showModel() {
  const model = state.model;
  element("model-line").textContent = `${model.name}: ${count(model.parameters)} parameters` + (model.expertsPerLayer ? `, ${count(model.expertsPerLayer)} experts in each of ${(model.sparseLayers || []).length} sparse layers` : ", no experts");
  document.title = `${model.name} – Switchyard`;
  fill(element("facts"), [
    ["Name", model.name], ["Parameters", count(model.parameters)], ["Weights", words(model.weightDtype || "")],
    ["Fingerprint", BigInt(model.fingerprint || 0).toString(16).padStart(16, "0")], ["Vocabulary", count(model.vocabularySize)],
    ["Width (d_model)", count(model.dModel)], ["Feed-forward (d_ff)", count(model.dFf)], ["Attention heads", `${count(model.numHeads)} of width ${count(model.dKv)}`],
    ["Encoder blocks", count(model.encoderBlocks)], ["Decoder blocks", count(model.decoderBlocks)],
    ["Experts in a sparse layer", count(model.expertsPerLayer)], ["Capacity of an expert", count(model.expertCapacity)],
    ["Longest input", count(model.maxInputTokens) + " tokens"], ["Most new tokens", count(model.maxNewTokens)], ["Software", model.version || ""],
  ]);
  element("most").max = model.maxNewTokens || 1024;
  element("beams").max = model.maxSequences || 32;
}

// Views

const views = ["ask", "cluster", "experts", "model"];

function current() {
  const name = location.hash.slice(1);
  return views.includes(name) ? name : "ask";
}

function show() {
  for (const name of views) element("view-" + name).hidden = name !== current();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === "#" + current()) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  draw();
  refresh();
}

let refreshing = false;

async function refresh() {
  if (refreshing) return;
  refreshing = true;
  try {
    if (!state.model || current() === "model") {
      state.model = await (await ask("v1/model")).json();
      showModel();
    }
    state.cluster = await (await ask("v1/cluster")).json();
    record();
    draw();
    complain("refresh", null);
  } catch (error) {
    complain("refresh", error);
  } finally {
    refreshing = false;
  }
}

function draw() {
  if (!state.cluster) return;
  if (current() === "cluster") showCluster();
  if (current() === "experts") showExperts();
  if (current() === "model" && state.model) showPlaces();
}

/// Copies, or marks the text for copying where a browser gives pages without TLS no clipboard.
async function copy(button) {
  const source = element(button.dataset.copy), text = button.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    source.focus();
    button.textContent = "Selected: copy with the keyboard";
  }
  setTimeout(() => { button.textContent = text; }, 1500);
}

function begin() {
  addEventListener("hashchange", () => { show(); element("main").focus(); });
  // An address of its own would leave the view.
  element("skip").addEventListener("click", (event) => { event.preventDefault(); element("main").focus(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { draw(); showRoutes(); });
  addEventListener("resize", draw);
  element("ask-form").addEventListener("submit", askModel);
  element("ask-form").addEventListener("input", showCalls);
  element("stop").addEventListener("click", () => state.asking && state.asking.abort());
  element("layer").addEventListener("change", showRoutes);
  element("measure").addEventListener("change", () => state.cluster && showExperts());
  element("history-layer").addEventListener("change", drawHistory);
  element("heat").addEventListener("mousemove", pointAt);
  element("sample").addEventListener("change", () => {
    for (const id of ["temperature", "top-p", "seed"]) element(id).disabled = !element("sample").checked;
    element("beams").disabled = element("sample").checked;
    if (element("sample").checked) element("beams").value = 1;
    showCalls();
  });
  element("gap").addEventListener("click", () => {
    const text = element("text");
    const used = [...text.value.matchAll(/<extra_id_(\d+)>/g)].map((match) => Number(match[1]));
    text.setRangeText(`<extra_id_${used.length ? Math.max(...used) + 1 : 0}>`, text.selectionStart, text.selectionEnd, "end");
    text.focus();
    showCalls();
  });
  element("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.token = element("token").value;
    showCalls();
    refresh();
  });
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(button));
  }
  showCalls();
  show();
  // Without the token that it wants, the gateway would only refuse.
  setInterval(() => { if (!document.hidden && element("token-form").hidden) refresh(); }, 2000);
}

begin();
