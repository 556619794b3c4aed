"use strict";
const token = location.hash.slice(1);
const SIDES = ["probe", "reference"];
const $ = (id) => document.getElementById(id);
const stackOf = (side) => document.querySelector(`.stack[data-side=${side}]`);
const FOR = "#0072b2", AGAINST = "#d55e00";
const chosen = { probe: null, reference: null }; // {name, data, height, width, faces, face}
let start = null, answer = null, matches = [], turn = 0, atWork = 0, stopped = false, searched = null, pointed = null;
class Gone extends Error {}

async function ask(path, body, type = "application/json") {
  const headers = { Authorization: `Bearer ${token}`, ...(body ? { "Content-Type": type } : {}) };
  const reply = await fetch(path, { method: body ? "POST" : "GET", headers, body, cache: "no-store" }).catch(() => {
    throw new Gone("The program behind this page does not answer: start `xfr web` again.");
  });
  if (reply.ok) return reply;
  if (reply.status === 401) throw new Error("This address lacks its token: use the one that `xfr web` printed.");
  const told = await reply.json().catch(() => ({ message: `error ${reply.status}` }));
  throw new Error(told.message);
}

const element = (name, text = "", attributes = {}) => Object.assign(document.createElement(name), { textContent: text }, attributes);
const signed = (value, digits = 0) => {
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "" : value < 0 ? "−" : "+") + text;
};
const plain = (value, digits = 3) => value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");
/** How many digits to write of two numbers, so that they and their difference do not look equal where they are not. */
function digitsApart(first, second, least = 3) {
  const alike = (digits) => first.toFixed(digits) === second.toFixed(digits) || Number((first - second).toFixed(digits)) === 0;
  let digits = least;
  while (first !== second && digits < 9 && alike(digits)) digits += 1;
  return digits;
}
const png = (data) => `data:image/png;base64,${data}`;
const whole = (text) => text.replace(/ (?=[±%])|(?<=±) /g, "\u00a0"); // no line ends within a number
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const bytesOf = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));

function base64(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

function fail(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
}

/** Do slow work: say what, refuse a second start of it, and show its error. */
async function working(what, button, work) {
  $("error").hidden = true;
  $("status").textContent = what;
  atWork += 1;
  $("busy").hidden = false;
  if (button) button.disabled = true;
  try {
    await work();
  } catch (error) {
    fail(error);
    $("error").scrollIntoView({ block: "nearest" });
  }
  atWork -= 1;
  $("busy").hidden = atWork === 0;
  if (atWork === 0) $("status").textContent = "";
  if (button) button.disabled = false;
  ready();
}

const isReady = () => SIDES.every((side) => chosen[side]?.faces);

const ready = () => { $("explain").disabled = atWork > 0 || !isReady(); };

function forget() {
  turn += 1; // answers on their way are of another pair
  answer = null;
  clearMore();
  $("result").hidden = true;
}

function clearMore() {
  matches = [];
  $("matches").hidden = $("methods").hidden = true;
  drawLines();
}

function forgetSearch() {
  stopped = true;
  searched = null; // a ranking for another probe
  $("search-status").textContent = "";
  $("candidates").replaceChildren();
  $("skipped").hidden = $("ask-why").hidden = $("why").hidden = true;
}

/* ---- photographs and their faces */

async function take(side, blob, name) {
  const box = $(side), note = box.querySelector(".note"), faces = box.querySelector(".faces");
  const own = (chosen[side] = { name, face: 0 });
  forget();
  if (side === "probe") forgetSearch();
  ready();
  faces.replaceChildren();
  $("error").hidden = true;
  note.textContent = `${name}: looking for faces …`;
  try {
    const found = await (await ask("/web/faces", blob, "application/octet-stream")).json();
    const data = await base64(blob);
    if (chosen[side] !== own) return;
    Object.assign(own, found, { data });
    const count = found.faces.length;
    note.textContent = count > 1 ? `${name}: ${count} faces found, choose one` : `${name}: one face found`;
    faces.append(...found.faces.map((face, place) => option(side, own, face, place, count)));
  } catch (error) {
    if (chosen[side] !== own) return;
    chosen[side] = null;
    note.textContent = `${name}: not usable`;
    fail(new Error(`${capital(side)}: ${error.message}`));
  }
  ready();
}

function option(side, own, face, place, count) {
  const label = element("label"), radio = element("input", "", { type: "radio", name: `${side}-face`, checked: place === 0 });
  radio.addEventListener("change", () => { own.face = place; forget(); if (side === "probe") forgetSearch(); });
  label.append(radio, element("img", "", { src: png(face.crop), alt: `face ${place + 1} of ${count} in the ${side}` }));
  return label;
}

for (const side of SIDES) {
  const box = $(side), input = box.querySelector("input");
  input.addEventListener("change", () => { if (input.files[0]) take(side, input.files[0], input.files[0].name); input.value = ""; });
  box.addEventListener("dragover", (event) => { event.preventDefault(); box.classList.add("over"); });
  box.addEventListener("dragleave", () => box.classList.remove("over"));
  box.addEventListener("drop", (event) => {
    event.preventDefault();
    box.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) take(side, file, file.name);
  });
}
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());

for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    const faces = start.samples[button.dataset.sample];
    await Promise.all(SIDES.map((side, place) => take(side, new Blob([bytesOf(faces[place])]), "a face of nobody")));
  });
}

/* ---- the decision and its reasons */

const pairOf = (more) => JSON.stringify({
  probe: { image: chosen.probe.data, face: chosen.probe.face },
  reference: { image: chosen.reference.data, face: chosen.reference.face }, ...more,
});

const explained = async (method, returns) => (await ask("/explanations/xfr", pairOf({ method, returns }))).json();

const explain = () => working("Deciding, explaining, and testing the explanation …", $("explain"), explainPair);
$("explain").addEventListener("click", explain);

async function explainPair() {
  forget();
  const mine = turn, found = await explained("auto", ["regions", "overlay", "words", "faithfulness"]);
  if (mine !== turn) return;
  answer = found;
  $("result").hidden = false;
  showDecision();
  showDoubt(answer.explanation);
  showMaps();
  blend(100);
  showTable();
  $("words").replaceChildren(...[...new Set(answer.explanation.words)].map((text) => element("li", whole(text))));
  $("verdict").focus({ preventScroll: true });
  $("verdict").scrollIntoView();
}

function showDecision() {
  const { match, score, threshold } = answer.decision, [low, high] = ends(score, threshold), digits = digitsApart(score, threshold);
  const at = (value) => `${(100 * (value - low)) / (high - low)}%`;
  $("verdict").textContent = match ? "Match" : "No match";
  $("verdict").className = match ? "for-text" : "against-text";
  $("passes").style.left = $("threshold").style.left = at(threshold);
  $("score").style.left = at(score);
  $("score-text").textContent = plain(score, digits);
  $("threshold-text").textContent = plain(threshold, digits);
  for (const [id, end] of [["low", low], ["high", high]]) $(id).textContent = String(Number(end.toPrecision(4))).replace("-", "−");
  const side = score > threshold ? "above" : score < threshold ? "below" : "at";
  $("scale").setAttribute("aria-label", `score ${plain(score, digits)}, ${side} the threshold ${plain(threshold, digits)}`);
}

/** Say above the maps that the check does not support them, as the first of the words does. */
const showDoubt = ({ faithfulness, words }) => Object.assign($("doubt"), { hidden: (faithfulness?.verdict ?? "supported") === "supported", textContent: words[0] });

/** Ends of the scale: of cosines up to 1, of other scores as far as these two need. */
function ends(score, threshold) {
  const least = Math.min(score, threshold), most = Math.max(score, threshold);
  if (Math.max(-least, most) <= 1) return [least < -0.2 ? -1 : -0.25, 1];
  const beyond = Math.max(most - least, 1e-3 * Math.abs(threshold));
  return [least - beyond, most + beyond];
}

const faceOf = (side) => chosen[side].faces[chosen[side].face];

function showMaps() {
  for (const side of SIDES) {
    const stack = stackOf(side), face = faceOf(side);
    face.pixels ??= bytesOf(face.labels);
    stack.querySelector(".photo").src = png(face.crop);
    stack.querySelector(".map").src = png(answer.explanation[side].overlay_png);
  }
  requestAnimationFrame(() => highlight(null));
}

/** Evidence by region as shares of all evidence in the picture, in percent. */
function shares(table) {
  const sum = table.reduce((total, row) => total + row.similar + row.dissimilar, 0) || 1;
  const pixels = table.reduce((total, row) => total + row.pixels, 0);
  return new Map(table.map((row) => [row.region, {
    share: (100 * row.evidence) / sum, error: row.error === null ? null : (100 * row.error) / sum, area: (100 * row.pixels) / pixels,
  }]));
}

function showTable() {
  const [probe, reference] = SIDES.map((side) => shares(answer.explanation[side].regions));
  const isApart = (name) => start.apart.includes(name), mean = (name) => probe.get(name).share + reference.get(name).share;
  const names = [...probe.keys()].filter((name) => probe.get(name).area || reference.get(name).area);
  const total = names.filter((name) => !isApart(name)).reduce((sum, name) => sum + mean(name), 0);
  names.sort((a, b) => isApart(a) - isApart(b) || (total < 0 ? mean(a) - mean(b) : mean(b) - mean(a)));
  $("regions").replaceChildren(...names.map((name) => {
    const row = element("tr", "", { className: isApart(name) ? "apart" : "" }), head = element("th", "", { scope: "row" });
    const button = element("button", spoken(name), { type: "button" });
    head.append(button);
    row.append(head, ...[probe, reference].flatMap((side) => cells(side.get(name))));
    row.dataset.region = name;
    row.addEventListener("pointerenter", () => highlight(name));
    button.addEventListener("focus", () => highlight(name));
    button.addEventListener("click", () => highlight(name));
    return row;
  }));
}

function cells({ share, error, area }) {
  if (!area) return [element("td", "not seen"), element("td", "–")];
  const kind = Math.abs(share) < Math.max(0.5, 2 * error) ? "" : share > 0 ? "for-text" : "against-text";
  const [value, more] = withError(share, error), cell = element("td", value, { className: kind });
  cell.append(element("span", more, { className: "error" }), " %");
  return [cell, element("td", area < 0.1 ? "< 0.1 %" : `${area.toFixed(area < 2 ? 1 : 0)} %`)];
}

/** A share in percent, and its standard error, where the method has one. */
function withError(share, error) {
  const digits = error === null || error >= 1 ? 0 : 1;
  return [signed(share, digits), error === null ? "" : ` ± ${error.toFixed(digits)}`];
}

const spoken = (region) => start.regions[region] ?? region;

function highlight(name) {
  if (!answer) return;
  pointed = name;
  for (const row of $("regions").rows) row.classList.toggle("on", row.dataset.region === name);
  for (const side of SIDES) outline(side, name);
  if (!name) return void ($("tip").textContent = "Point at a region, or go through the table with the keyboard.");
  const said = SIDES.map((side) => {
    const { share, error, area } = shares(answer.explanation[side].regions).get(name);
    return `${area ? `${withError(share, error).join("")} %` : "not seen"} in the ${side}`;
  });
  $("tip").textContent = `${capital(spoken(name))}: ${said.join(", ")}, of all evidence there (+\u00a0for a match, −\u00a0against).`;
}

/** Draw where the regions meet, and one of them thicker. */
function outline(side, name) {
  const canvas = stackOf(side).querySelector("canvas"), { width, height } = chosen[side], { pixels, names } = faceOf(side);
  const scale = (canvas.clientWidth * devicePixelRatio) / width, draw = canvas.getContext("2d");
  canvas.width = width * scale;
  canvas.height = height * scale;
  const wanted = name === null ? -1 : names.indexOf(name), all = new Path2D(), one = new Path2D();
  const edge = (a, b, x0, y0, x1, y1) => {
    if (a === b) return;
    for (const path of a === wanted || b === wanted ? [one] : [all]) { path.moveTo(x0 * scale, y0 * scale); path.lineTo(x1 * scale, y1 * scale); }
  };
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const here = pixels[y * width + x];
    if (x + 1 < width) edge(here, pixels[y * width + x + 1], x + 1, y, x + 1, y + 1);
    if (y + 1 < height) edge(here, pixels[(y + 1) * width + x], x, y + 1, x + 1, y + 1);
  }
  const stroke = (path, colour, thickness) => { draw.strokeStyle = colour; draw.lineWidth = thickness * devicePixelRatio; draw.stroke(path); };
  draw.lineCap = "round";
  stroke(all, "rgb(255 255 255 / 35%)", 1);
  stroke(one, "#000", 5);
  stroke(one, "#fff", 2.5);
}

for (const side of SIDES) {
  const stack = stackOf(side);
  for (const kind of ["pointermove", "pointerdown"]) stack.addEventListener(kind, (event) => {
    if (!answer) return;
    const box = stack.getBoundingClientRect(), { width, height } = chosen[side], { pixels, names } = faceOf(side);
    const x = Math.floor(((event.clientX - box.left) / box.width) * width), y = Math.floor(((event.clientY - box.top) / box.height) * height);
    if (x >= 0 && y >= 0 && x < width && y < height) highlight(names[pixels[y * width + x]]);
  });
}

function blend(percent) {
  $("blend").value = percent;
  for (const map of document.querySelectorAll(".stack .map")) map.style.opacity = percent / 100;
}
$("blend").addEventListener("input", () => blend($("blend").value));
addEventListener("resize", () => { highlight(pointed); drawLines(); });

/* ---- more on the same pair */

$("ask-matches").addEventListener("click", () => working("Looking which parts go with which …", $("ask-matches"), async () => {
  const mine = turn, found = await (await ask("/web/matches", pairOf({}))).json();
  if (mine !== turn) return;
  matches = found.pairs.filter((pair) => Math.abs(pair.value) >= 0.0005);
  $("matches").hidden = false;
  $("matches").querySelector("ol").replaceChildren(...matches.map((pair) =>
    element("li", `${spoken(pair.probe)} – ${spoken(pair.reference)}: ${signed(pair.value, 3)}`)));
  $("matches").querySelector(".note").textContent = matches.length
    ? "Probe – reference: what the two bring to the score together, by Shapley values of removing both. Lines: blue and whole raise the score, orange and dashed lower it; thicker is more. They prove no resemblance."
    : "No two parts bring anything to the score together.";
  blend(0);
  drawLines();
}));

function centre(side, region) {
  const { pixels, names } = faceOf(side), { width, height } = chosen[side], wanted = names.indexOf(region);
  let x = 0, y = 0, count = 0;
  pixels.forEach((label, place) => { if (label === wanted) { x += place % width; y += Math.floor(place / width); count += 1; } });
  if (!count) return null;
  const box = stackOf(side).getBoundingClientRect(), origin = $("pair").getBoundingClientRect();
  return [box.left - origin.left + ((x / count + 0.5) / width) * box.width, box.top - origin.top + ((y / count + 0.5) / height) * box.height];
}

function drawLines() {
  const svg = $("lines"), most = Math.max(...matches.map((pair) => Math.abs(pair.value)));
  svg.replaceChildren();
  for (const pair of matches) {
    const ends = [centre("probe", pair.probe), centre("reference", pair.reference)];
    if (ends.includes(null)) continue;
    for (const [colour, more] of [["#fff", 2], [pair.value > 0 ? FOR : AGAINST, 0]]) {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
      const set = { x1: ends[0][0], y1: ends[0][1], x2: ends[1][0], y2: ends[1][1], stroke: colour, "stroke-width": 1 + more + (4 * Math.abs(pair.value)) / most };
      for (const [name, value] of Object.entries(set)) line.setAttribute(name, value);
      if (pair.value < 0) line.setAttribute("stroke-dasharray", "8 5");
      svg.append(line);
    }
  }
}

$("ask-methods").addEventListener("click", () => working("Asking other methods …", $("ask-methods"), async () => {
  const mine = turn, cards = $("methods").querySelector(".cards"), names = Object.keys(start.methods).filter((name) => name !== answer.explanation.method);
  cards.replaceChildren();
  $("methods").hidden = false;
  for (const [place, name] of names.entries()) {
    $("status").textContent = `Method ${place + 1} of ${names.length}: ${start.methods[name]} …`;
    const found = await explained(name, ["regions", "overlay"]).catch((error) => ({ message: error.message }));
    if (mine !== turn) return;
    cards.append(card(start.methods[name], found));
  }
}));

/** What argues most in a face: a mean of both would say what neither map shows where they disagree. */
function extremes(side, known) {
  const ranked = [...known].filter(([name]) => !start.apart.includes(name)).sort((a, b) => b[1].share - a[1].share);
  const said = ([name, { share }], sign) => (sign * share > 0.5 ? whole(`${spoken(name)} (${signed(share)} %)`) : "nothing");
  return `${capital(side)}: most for ${said(ranked[0], 1)}; most against ${said(ranked.at(-1), -1)}.`;
}

function card(title, found) {
  const box = element("article"), why = found.explanation;
  box.append(element("h4", why ? why.title : title));
  if (!why) return box.append(element("p", found.message)), box;
  box.append(...SIDES.map((side) => element("img", "", { src: png(why[side].overlay_png), alt: `map of the ${side} by ${why.title}` })));
  box.append(...SIDES.map((side) => element("p", extremes(side, shares(why[side].regions)))));
  if (why.replaced) box.append(element("p", why.replaced.reason));
  return box.append(element("p", capital(why.caveat) + ".", { className: "note" })), box;
}

function save(blob, name) {
  const link = element("a", "", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

$("save-json").addEventListener("click", () => save(new Blob([JSON.stringify(answer, null, 1)], { type: "application/json" }), "xfr-answer.json"));
$("ask-report").addEventListener("click", () => working("Writing the report: three methods, and the check …", $("ask-report"), async () => {
  const mine = turn, page = await (await ask("/web/report", pairOf({ method: answer.explanation.method }))).blob();
  if (mine === turn) save(page, "report.html");
}));

/* ---- one against many */

const MOST_SHOWN = 20;

$("folder").addEventListener("change", () => {
  const files = [...$("folder").files].filter((file) => /^[^.].*\.(jpe?g|png|webp|bmp)$/i.test(file.name));
  $("folder").value = "";
  search(files);
});
$("stop").addEventListener("click", () => { stopped = true; });

async function search(files) {
  const probe = chosen.probe?.faces && faceOf("probe").crop;
  const say = (text) => { $("search-status").textContent = text; };
  $("candidates").replaceChildren();
  $("skipped").hidden = $("ask-why").hidden = $("why").hidden = true;
  if (!probe) return say("Choose the probe above first.");
  if (!files.length) return say("There is no JPEG, PNG, WebP or BMP file in this folder.");
  stopped = false;
  searched = probe;
  $("folder").disabled = true;
  $("stop").hidden = $("searched").hidden = false;
  $("searched").max = files.length;
  const found = [], skipped = [];
  for (const [place, file] of files.entries()) {
    if (stopped) break;
    $("searched").value = place;
    say(`Photograph ${place + 1} of ${files.length} …`);
    try {
      const body = JSON.stringify({ probe, reference: await base64(file), returns: start.stored ? ["embeddings"] : [] });
      const told = await (await ask("/predictions/xfr", body)).json();
      const copies = told.warnings.some((warned) => warned.code === "same_picture");
      found.push({ file, copies, ...told.decision, embedding: told.embeddings?.reference });
    } catch (error) {
      if (error instanceof Gone) { fail(error); break; }
      skipped.push(element("li", `${pathOf(file)}: ${error.message}`));
    }
  }
  $("folder").disabled = false;
  $("stop").hidden = $("searched").hidden = true;
  if (searched !== probe) return say("");
  found.sort((a, b) => b.score - a.score);
  const best = found.slice(0, MOST_SHOWN);
  say(`${found.length} of ${files.length} photographs compared, ${found.filter((one) => one.match).length} at or above the threshold`
    + `${best.length < found.length ? `; the best ${best.length} are listed` : ""}. `
    + "The threshold is meant for one comparison: among many people, somebody passes it by chance more often.");
  $("candidates").replaceChildren(...best.map(candidate));
  offerWhy(probe, found);
  $("skipped").hidden = !skipped.length;
  $("skipped").querySelector("summary").textContent = `${skipped.length} could not be compared`;
  $("skipped").querySelector("ul").replaceChildren(...skipped);
}

/** Where a file lies in the folder that was chosen: names alone may be the same in many folders. */
const pathOf = (file) => file.webkitRelativePath.split("/").slice(1).join("/") || file.name;

function candidate({ file, score, threshold, match, copies }) {
  const said = `${plain(score, digitsApart(score, threshold))}, ${match ? "match" : "no match"}${copies ? ", the same picture" : ""}`;
  const row = element("li", `${pathOf(file)}: ${said} `), button = element("button", "Explain", { type: "button" });
  button.setAttribute("aria-label", `Explain ${pathOf(file)}`);
  button.addEventListener("click", async () => {
    await take("reference", file, pathOf(file));
    if (isReady()) explain();
  });
  row.append(button);
  return row;
}

const whyNot = (first, second) => `Why ${pathOf(first.file)} ${first.match && !second.match ? "and not" : "before"} ${pathOf(second.file)}`;

/** Offer to say what argues for the first rather than for the second. */
function offerWhy(probe, [first, second]) {
  const button = $("ask-why");
  button.hidden = !second?.embedding;
  if (button.hidden) return;
  button.textContent = `${whyNot(first, second)}?`;
  button.onclick = () => working("Comparing the reasons …", button, async () => {
    const embeddings = [first, second].map((one) => numbersOf(one.embedding));
    const body = JSON.stringify({ probe, gallery: { embeddings, top: 1 }, returns: ["regions", "overlay"] });
    const [best] = (await (await ask("/explanations/xfr", body)).json()).candidates;
    if (searched === probe) showWhy(first, second, best);
  });
}

const numbersOf = (text) => [...new Float32Array(bytesOf(text).buffer)];

function showWhy(first, second, { lead, explanation }) {
  const box = $("why"), { probe } = explanation, known = shares(probe.regions);
  const ranked = [...known].filter(([name]) => !start.apart.includes(name)).sort((a, b) => b[1].share - a[1].share);
  const said = (rows) => rows.map(([name, { share }]) => `${spoken(name)} (${signed(share)} %)`).join(", ") || "nothing";
  const most = ranked.filter(([, { share }]) => share > 0.5).slice(0, 3), least = ranked.reverse().filter(([, { share }]) => share < -0.5).slice(0, 3);
  box.querySelector("h3").textContent = whyNot(first, second);
  const passing = [first, second].filter((one) => one.match).length;
  box.querySelector("p").textContent = (lead ? `The first leads by ${plain(lead, digitsApart(lead, 0))}. ` : "Both have the same score. ")
    + ["Neither reaches the threshold.", "The first alone reaches the threshold.", "Both reach the threshold."][passing];
  box.querySelector("ul").replaceChildren(element("li", `Most for the first: ${said(most)}.`), element("li", `Most for the second: ${said(least)}.`));
  Object.assign(box.querySelector("img"), { src: png(probe.overlay_png), alt: "map of the probe: what argues for the first rather than for the second" });
  box.querySelector(".note").textContent = `The map of the probe against the first, less that against the second. Blue argues for the first, hatched orange for the second. ${capital(explanation.caveat)}.`;
  box.hidden = false;
}

working("Starting …", null, async () => {
  start = await (await ask("/web/start")).json();
  for (const button of document.querySelectorAll("[data-sample]")) button.disabled = false;
});
