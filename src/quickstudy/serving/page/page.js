// The playground: what a person does becomes a call of the service's own routes, and its answer is shown.

import { element } from "./element.js";

const $ = (id) => document.getElementById(id);
const SIDE = 224; // pixels of a drawing
const RATE = 16000; // Hz of a recording
const LONGEST = 5; // seconds of a recording

const state = { task: null, kind: "classify", modality: "text", name: "playground", shown: new Map(), targets: new Map(), curve: [], asked: null };
const kinds = {}; // what each kind of task that the model has learned says of itself: kind-KIND.js
const kind = () => kinds[state.kind];

// ---- the service

async function call(method, path, body) {
  const headers = { "content-type": "application/json" };
  const key = sessionStorage.getItem("key");
  if (key) headers.authorization = `Bearer ${key}`;
  let reply;
  try {
    reply = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("the service cannot be reached");
  }
  $("key-form").hidden = reply.status !== 401;
  if (reply.status === 204) return null;
  const said = await reply.json();
  if (!reply.ok) throw new Error(said.error);
  return said;
}

// One thing at a time: who presses twice does not teach twice.
let busy = false;
async function doing(what, work) {
  if (busy) return;
  busy = true;
  $("problem").hidden = true;
  $("status").textContent = what;
  document.body.setAttribute("aria-busy", "true");
  try {
    $("status").textContent = (await work()) ?? "";
  } catch (error) {
    $("status").textContent = "";
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

// ---- small pieces of a page

function drawn(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function content(input, label) {
  if (input === undefined || input === null) return element("span", { class: "quiet" }, "an example");
  if (state.modality === "image") {
    return element("img", { class: "picture", alt: `example of ${label}`, src: `data:;base64,${input}` });
  }
  if (state.modality === "audio") {
    return element("audio", { controls: "", preload: "none", src: `data:audio/${input.startsWith("ZkxhQ") ? "flac" : "wav"};base64,${input}`, "aria-label": `example of ${label}` });
  }
  return element("span", {}, input);
}

function base64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
}

// ---- inputs: each gives `take()`, the inputs that a person has put there, and `clear()`

const takers = {};

function textInput(where) {
  const several = where === "teach";
  const id = `${where}-text`;
  const area = element("textarea", { id, rows: several ? 4 : 2, placeholder: several ? "One example a line" : "" });
  const box = [element("label", { for: id }, several ? "Examples, one a line" : "Text"), area];
  const lines = () => area.value.split("\n").map((line) => line.trim()).filter(Boolean);
  return { box, take: async () => (several ? lines() : area.value.trim() ? [area.value.trim()] : []), clear: () => (area.value = ""), set: (text) => (area.value = text) };
}

function fileInput(where, accept, read) {
  const id = `${where}-files`;
  const more = where === "teach" ? { multiple: "" } : {};
  const input = element("input", { id, type: "file", accept, ...more });
  const take = () => Promise.all([...input.files].map(read));
  return { box: [element("label", { for: id }, where === "teach" ? "Or files" : "Or a file"), input], take, clear: () => (input.value = "") };
}

function imageInput(where) {
  const hint = `${where}-hint`;
  const canvas = element("canvas", {
    width: SIDE, height: SIDE, tabindex: 0, role: "application", "aria-label": "Drawing", "aria-describedby": hint, id: `${where}-canvas`,
  });
  const pen = canvas.getContext("2d");
  let used = false, at = [SIDE / 2, SIDE / 2], down = false, before = null;
  const clear = () => {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, SIDE, SIDE);
    Object.assign(pen, { lineWidth: 12, lineCap: "round", lineJoin: "round", strokeStyle: "#000" });
    used = down = false;
    before = null;
  };
  const line = (from, to) => {
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
    used = true;
  };
  const place = (event) => {
    const seen = canvas.getBoundingClientRect();
    return [((event.clientX - seen.left) * SIDE) / seen.width, ((event.clientY - seen.top) * SIDE) / seen.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    before = place(event);
    line(before, before);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!before) return;
    const now = place(event);
    line(before, now);
    before = now;
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (before = null));
  const told = element("p", { class: "hint", id: hint }, "Draw with a finger, a pen or the mouse; by keyboard: arrows move, space puts the pen down or lifts it.");
  const pens = element("p", { class: "hint", role: "status" });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-8, 0], ArrowRight: [8, 0], ArrowUp: [0, -8], ArrowDown: [0, 8] }[event.key];
    if (!step && event.key !== " ") return;
    event.preventDefault();
    const from = at;
    if (step) at = at.map((value, i) => Math.min(SIDE - 8, Math.max(8, value + step[i])));
    else down = !down;
    if (down) line(from, at);
    pens.textContent = `Pen ${down ? "down" : "up"}, ${Math.round((100 * at[0]) / SIDE)}% from the left, ${Math.round((100 * at[1]) / SIDE)}% from the top`;
  });
  clear();
  const files = fileInput(where, "image/*", async (file) => base64(new Uint8Array(await file.arrayBuffer())));
  const wipe = element("button", { type: "button", onclick: clear }, "Clear the drawing");
  const box = [element("label", { for: canvas.id }, "Draw"), canvas, told, pens, wipe, ...files.box];
  const take = async () => [...(used ? [canvas.toDataURL("image/png").split(",")[1]] : []), ...(await files.take())];
  return { box, take, clear: () => (clear(), files.clear()), set: (data) => {
    const image = new Image();
    image.onload = () => (pen.drawImage(image, 0, 0, SIDE, SIDE), (used = true));
    image.src = `data:;base64,${data}`;
  } };
}

// What a browser records (WebM, MP4 …) the service does not read: it is decoded here, and sent as WAV.
async function wav(bytes) {
  const decoder = new OfflineAudioContext(1, RATE, RATE); // resamples to its own rate
  let sound;
  try {
    sound = await decoder.decodeAudioData(bytes);
  } catch {
    throw new Error("this is no sound that the browser can read");
  }
  const mono = new Float32Array(sound.length);
  for (let c = 0; c < sound.numberOfChannels; c++) {
    sound.getChannelData(c).forEach((value, i) => (mono[i] += value / sound.numberOfChannels));
  }
  const view = new DataView(new ArrayBuffer(44 + 2 * mono.length));
  const write = (offset, text) => [...text].forEach((c, i) => view.setUint8(offset + i, c.charCodeAt(0)));
  write(0, "RIFF"); view.setUint32(4, 36 + 2 * mono.length, true); write(8, "WAVEfmt "); view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); view.setUint16(22, 1, true); view.setUint32(24, RATE, true); view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true); write(36, "data"); view.setUint32(40, 2 * mono.length, true);
  mono.forEach((value, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, value)) * 32767, true));
  return base64(new Uint8Array(view.buffer));
}

function audioInput(where) {
  let recording = null, recorder = null;
  const heard = element("div");
  const show = (data) => {
    recording = data;
    heard.replaceChildren(...(data ? [content(data, "what was recorded")] : []));
  };
  const button = element("button", { type: "button", "aria-pressed": "false", id: `${where}-record` }, "Record");
  button.addEventListener("click", async () => {
    if (recorder) return recorder.stop();
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    } catch {
      $("problem").textContent = "there is no microphone that this page may use; choose a file instead";
      $("problem").hidden = false;
      return;
    }
    const parts = [];
    recorder = new MediaRecorder(stream);
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    recorder.addEventListener("stop", async () => {
      stream.getTracks().forEach((track) => track.stop());
      recorder = null;
      button.textContent = "Record";
      button.setAttribute("aria-pressed", "false");
      await doing("Reading the recording …", async () => show(await wav(await new Blob(parts).arrayBuffer())));
    });
    recorder.start();
    setTimeout(() => recorder?.stop(), 1000 * LONGEST);
    button.textContent = "Stop";
    button.setAttribute("aria-pressed", "true");
  });
  const files = fileInput(where, "audio/*", async (file) => wav(await file.arrayBuffer()));
  const box = [element("label", { for: button.id }, `A sound, up to ${LONGEST} seconds`), button, heard, ...files.box];
  return { box, take: async () => [...(recording ? [recording] : []), ...(await files.take())], clear: () => (show(null), files.clear()), set: show };
}

// ---- teach

function start(modality, name, of = state.kind) {
  Object.assign(state, { task: null, kind: of, modality, name, shown: new Map(), targets: new Map(), curve: [], asked: null });
  for (const slot of document.querySelectorAll("[data-input]")) {
    const where = slot.dataset.input;
    takers[where] = { text: textInput, image: imageInput, audio: audioInput }[modality](where);
    slot.replaceChildren(...takers[where].box);
  }
  for (const button of document.querySelectorAll("[data-new]")) {
    button.setAttribute("aria-pressed", String(button.dataset.new === modality));
  }
  for (const button of $("kinds").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.kind === state.kind));
  }
  $("label-word").textContent = kind().word;
  $("right-word").textContent = kind().right;
  $("curve-word").textContent = kind().curve;
  for (const field of [$("label"), $("right-label")]) field.required = !kind().optional;
  $("label").placeholder = kind().hint;
  $("answer").replaceChildren(element("p", { class: "quiet" }, kind().wait));
  $("correct").hidden = true;
  showTaught();
  showCurve();
}

async function teach(examples) {
  if (!state.task) {
    const made = await call("POST", "/tasks", { name: state.name, kind: state.kind, modality: state.modality, examples });
    state.task = made.id;
    const all = (await call("GET", `/tasks/${made.id}`)).examples;
    all.forEach((one, i) => remember(one.id, examples[i]));
  } else {
    const { added } = await call("POST", `/tasks/${state.task}/examples`, { examples });
    added.forEach((id, i) => remember(id, examples[i]));
  }
  showTaught();
  await measure();
}

function remember(id, example) {
  state.shown.set(id, example.input);
  state.targets.set(id, example[kind().field]);
}

async function forget(id) {
  await call("DELETE", `/tasks/${state.task}/examples/${id}`);
  state.shown.delete(id);
  state.targets.delete(id);
  showTaught();
  await measure();
}

const classes = () => [...new Set([...state.targets.values()].flatMap(kind().names))].sort();
const enough = () => kind().enough([...state.targets.values()]);

async function measure() {
  if (!enough()) return;
  const { metric, score, right, asked } = await call("GET", `/tasks/${state.task}/accuracy`);
  if (asked) state.curve.push({ examples: state.targets.size, metric, score, right, asked });
  showCurve();
}

function showTaught() {
  const boxes = classes().map((label) => {
    const ids = [...state.targets].filter(([, own]) => kind().names(own).includes(label)).map(([id]) => id);
    const items = ids.map((id) => element("li", {},
      content(state.shown.get(id), label),
      element("button", { type: "button", title: "Take it back", "aria-label": `Take back an example of ${label}`, onclick: () => doing("Forgetting …", () => forget(id)) }, "×")));
    return element("div", { class: "class" }, element("strong", {}, label), ` ${ids.length}`,
      element("ul", { class: state.modality === "image" ? "pictures" : "" }, ...items));
  });
  const nothing = element("p", { class: "quiet" }, kind().nothing);
  $("taught").replaceChildren(...(boxes.length ? boxes : [nothing]));
  $("classes").replaceChildren(...classes().map((value) => element("option", { value })));
}

function showCurve() {
  const points = state.curve;
  const last = points.at(-1);
  if (!last) {
    $("chart").replaceChildren(element("p", { class: "quiet" }, "From two examples of a class on, each is left out in turn and asked."));
    $("accuracy").textContent = "";
    return;
  }
  const [width, height, left, right, top, bottom] = [360, 150, 40, 12, 10, 30];
  const most = Math.max(...points.map((p) => p.examples)), least = Math.min(...points.map((p) => p.examples));
  const x = (n) => left + (most > least ? (n - least) / (most - least) : 0.5) * (width - left - right);
  const y = (share) => top + (1 - share) * (height - top - bottom);
  const chart = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Accuracy by number of examples" });
  for (const share of [0, 0.5, 1]) {
    chart.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y(share), y2: y(share) }));
    chart.append(drawn("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share}%`));
  }
  chart.append(drawn("polyline", { class: "curve", points: points.map((p) => `${x(p.examples)},${y(p.score)}`).join(" ") }));
  for (const p of points) chart.append(drawn("circle", { class: "dot", r: 4, cx: x(p.examples), cy: y(p.score) }));
  for (const n of new Set([least, most])) chart.append(drawn("text", { x: x(n), y: height - 12, "text-anchor": "middle" }, n));
  chart.append(drawn("text", { x: (left + width - right) / 2, y: height - 1, "text-anchor": "middle" }, most > least ? "examples" : ""));
  $("chart").replaceChildren(chart);
  $("accuracy").textContent = last.metric === "accuracy"
    ? `${last.right} of ${last.asked} right, each left out in turn`
    : `${last.metric} ${last.score.toFixed(2)} on ${last.asked}, each left out in turn`;
}

// ---- ask

async function ask(input) {
  if (!state.task || !enough()) throw new Error(kind().missing);
  const said = await call("POST", `/tasks/${state.task}/predict`, { queries: [input] });
  state.asked = input;
  showAnswer(said.answers[0], said.threshold);
  $("model").textContent = `Model version ${said.model.version}`;
}

function bar(name, share, text, mark = null) {
  const fill = element("i");
  fill.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  const track = element("span", { class: "track", "aria-hidden": "true" }, fill);
  if (mark !== null) {
    const line = element("b");
    line.style.left = `${100 * Math.max(0, Math.min(1, mark))}%`;
    track.append(line);
  }
  return element("div", { class: "bar" }, element("span", { title: name }, name), track, element("span", {}, text));
}

function showAnswer(answer, threshold) {
  const percent = (share) => `${Math.round(100 * share)}%`;
  const said = kind().verdict(answer);
  const verdict = element("div", { class: said.unknown ? "verdict unknown" : "verdict" }, element("strong", {}, said.text), said.more);
  const ranked = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 8);
  const scale = Math.max(answer.unknown, threshold ?? 0, 1e-9) * 1.25; // both fit, whatever the score's unit
  const far = threshold === null
    ? [bar("score", answer.unknown / scale, answer.unknown.toFixed(2)), element("p", { class: "quiet" }, "Nothing counts as unknown in this task.")]
    : [bar("score", answer.unknown / scale, answer.unknown.toFixed(2), threshold / scale),
       element("p", { class: "quiet" }, `${answer.unknown.toFixed(2)}; unknown above ${threshold.toFixed(2)}, the mark`)];
  const near = answer.nearest.map((one) => element("li", {},
    element("span", { class: "quiet" }, one.likeness.toFixed(2)), element("strong", {}, kind().shown(one[kind().field])),
    content(state.shown.get(one.example) ?? one.input, kind().shown(one[kind().field]))));
  $("answer").replaceChildren(verdict, ...ranked.map(([name, share]) => bar(name, share, percent(share))),
    ...(kind().unknown ? [element("h3", {}, "How unlike all examples"), ...far] : []),
    element("h3", {}, "Nearest examples"), element("ul", { class: "near" }, ...near));
  $("correct").hidden = false;
}

// ---- ready-made tasks: taught shot by shot, so that one sees it learn

async function tryOne(name) {
  const made = await call("GET", `/playground/tasks/${name}`);
  start(made.modality, made.name, "classify");
  for (const [place, shot] of made.shots.entries()) {
    await teach(Object.entries(shot).map(([label, input]) => ({ input, label })));
    $("status").textContent = `Teaching ${made.name}: ${place + 1} of ${made.shots.length} shots`;
  }
  takers.ask.set(made.query);
  await ask(made.query);
  return `${made.name}: taught with ${made.shots.length} examples a class. Ask it something of your own, or teach more.`;
}

// ---- chat

const talk = { session: newSession(), taught: [] };

function newSession() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
}

function faq() {
  const lines = $("faq").value.split("\n").filter((line) => line.trim());
  return lines.map((line, i) => {
    const [question, ...answer] = line.split("|");
    if (!answer.length || !question.trim() || !answer.join("|").trim()) throw new Error(`line ${i + 1} of the FAQ has no question | answer`);
    return { question: question.trim(), answer: answer.join("|").trim() };
  });
}

function spoken(text, who = "") {
  $("talk").append(element("p", { class: who }, text));
}

function say(line, shown = line) {
  return doing("", async () => {
    for (const old of $("talk").querySelectorAll(".choices")) old.remove();
    const body = { session: talk.session, faq: faq(), taught: talk.taught, line };
    spoken(shown, "me");
    const reply = await call("POST", "/playground/chat", body);
    talk.taught = reply.taught;
    spoken(reply.text);
    if (reply.choices.length) {
      const choices = [...reply.choices, "Neither of them"];
      $("talk").append(element("div", { class: "choices" }, ...choices.map((text, i) =>
        element("button", { type: "button", onclick: () => say(i < reply.choices.length ? String(i + 1) : "0", text) }, text))));
    }
    $("tell").hidden = line === "/undo" || (reply.kind === "told" && !reply.learned);
    $("talk").scrollTop = $("talk").scrollHeight;
  });
}

// ---- what a person does

$("teach").addEventListener("submit", (event) => {
  event.preventDefault();
  doing("Teaching …", async () => {
    const target = kind().read($("label").value);
    const inputs = await takers.teach.take();
    if (!inputs.length) throw new Error("give an example first");
    await teach(inputs.map((input) => ({ input, [kind().field]: target })));
    takers.teach.clear();
    return `Taught: ${inputs.length} of ${kind().shown(target)}.`;
  });
});

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  doing("Asking …", async () => {
    const [input] = await takers.ask.take();
    if (input === undefined) throw new Error("give something to ask first");
    await ask(input);
  });
});

$("correct").addEventListener("submit", (event) => {
  event.preventDefault();
  doing("Correcting …", async () => {
    const target = kind().read($("right-label").value);
    await teach([{ input: state.asked, [kind().field]: target }]);
    $("right-label").value = "";
    await ask(state.asked);
    return `Corrected: this is ${kind().shown(target)}.`;
  });
});

for (const button of document.querySelectorAll("[data-try]")) {
  button.addEventListener("click", () => doing(`Making examples: ${button.textContent} …`, () => tryOne(button.dataset.try)));
}
for (const button of document.querySelectorAll("[data-new]")) {
  button.addEventListener("click", () => doing("", async () => start(button.dataset.new, "playground")));
}
for (const button of document.querySelectorAll("[data-say]")) {
  button.addEventListener("click", () => say(button.dataset.say, button.textContent));
}
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const line = $("line").value.trim();
  $("line").value = "";
  if (line) say(line);
});
$("tell").addEventListener("submit", (event) => {
  event.preventDefault();
  const answer = $("right-answer").value.trim();
  $("right-answer").value = "";
  if (answer) say(`/teach ${answer}`, `The answer is: ${answer}`);
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value.trim());
  $("key").value = "";
  $("key-form").hidden = $("problem").hidden = true;
});

const tabs = [...document.querySelectorAll('[role="tab"]')];
function choose(tab) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  tab.focus();
}
for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) choose(tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length]);
  });
}

// Which kinds of task the model has learned the service says; each has a module of its own.
async function begin() {
  const ready = await call("GET", "/ready").catch(() => ({ kinds: ["classify"] }));
  if (ready.version) $("model").textContent = `Model version ${ready.version}`;
  for (const name of ready.kinds) kinds[name] = (await import(`/page/kind-${name}.js`)).kind;
  $("kinds").replaceChildren(...Object.entries(kinds).map(([name, one]) =>
    element("button", { type: "button", "data-kind": name, "aria-pressed": "false", onclick: () => doing("", async () => start(state.modality, "playground", name)) }, one.button)));
  $("kinds").hidden = ready.kinds.length < 2;
  start("text", "playground", ready.kinds[0]);
}
begin();
call("GET", "/playground/faq").then((all) => ($("faq").value = all.map((one) => `${one.question} | ${one.answer}`).join("\n")), () => {});
