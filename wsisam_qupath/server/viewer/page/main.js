// The page: what is asked of the server, and what its answers do to the objects of a slide.

import { Problem, askJson, askModel, askRecords, setToken, slideQuery, takeToken } from "./api.js";
import * as objects from "./objects.js";
import {
  askUser, byId, describe, download, offerClasses, say, showCandidates, showList, showModel, showTool,
} from "./panel.js";
import { Stage } from "./stage.js";

const CLICKS = ["inside", "outside"];
const LOST = ["gone", "unauthorized"]; // the server was ended, or another one is in its place
const PREVIEW_MS = 120;
const SHOW_FOUND_MS = 200;
const MOST_UNDONE = 200;

let state = objects.EMPTY;
let past = [];
let shown = null;
let saved = { file: null, sha256: null, free: "", objects: state.objects };
let asking = Promise.resolve();
let saving = Promise.resolve();
let waiting = 0;
let search = null;
let preview = { timer: 0, abort: null };

const stage = new Stage(byId("stage"), { click, box: addBox, stroke: addStroke, hover, key: pressed });

function show() {
  stage.draw(state);
  showList(state, select);
  const selected = objects.selectedOf(state);
  showCandidates(selected);
  if (selected && document.activeElement !== byId("class")) byId("class").value = selected.className;
  byId("undo").disabled = past.length === 0;
  byId("remove").disabled = !selected;
  byId("find").disabled = !selected || !objects.answerOf(selected) || search !== null;
  byId("stop").hidden = search === null;
  byId("file").textContent = `${isDirty() ? "not saved" : "saved"}${saved.file ? `: ${saved.file}` : ""}`;
  const names = state.objects.map((one) => one.className).filter(Boolean);
  offerClasses([...new Set([...names, ...objects.KNOWN_CLASSES])]);
}

const isDirty = () => saved.objects !== state.objects;

// Every step that undo takes back goes through here.
function step(next) {
  past = [...past.slice(1 - MOST_UNDONE), state];
  state = next;
  clearPreview();
  show();
}

function undo() {
  if (!past.length) return say("There is nothing to undo.");
  state = past.pop();
  clearPreview();
  show();
  const selected = objects.selectedOf(state);
  if (selected && !selected.isAnswered) answer(selected.key);
  else say("Undone.");
}

function fail(error) {
  if (error.name === "AbortError") return;
  say(error.message, true);
  if (!(error instanceof Problem)) console.error(error);
}

// --- prompts ---

function request(object, earlier) {
  return { slide: shown.slide, ...objects.askFor(object, earlier) };
}

// Asks for the outline of an object as it is drawn when its turn comes; one after the other.
function answer(key) {
  waiting += 1;
  say("Outlining…");
  asking = asking.then(async () => {
    const object = objects.find(state, key);
    if (object && !object.isAnswered) await outline(object);
  }).catch(fail).finally(() => { waiting -= 1; });
}

async function outline(object) {
  const earlier = objects.answerOf(object) ?? object.start;
  const onLoading = () => say("The model is still being loaded…");
  const { features } = await askModel("/v1/segment", request(object, earlier), { onLoading });
  const [first] = features;
  const now = objects.find(state, object.key);
  if (!now || !objects.isSame(now, object)) return;
  if (!first?.geometry) {
    state = objects.change(state, object.key, { isAnswered: true });
    show();
    return say(`No outline: ${first?.properties?.reason ?? "nothing was found"}.`, true);
  }
  const { others = [], ...best } = first;
  state = objects.change(state, object.key, { answers: [best, ...others], pick: 0, isAnswered: true });
  show();
  say(`Outlined: ${describe(objects.find(state, object.key))}.`);
}

function addBox(box) {
  begin({ box });
}

function begin(drawn) {
  const next = withNew(drawn);
  step(next.state);
  answer(next.key);
}

function withNew(drawn) {
  const object = objects.makeObject({ ...drawn, className: byId("class").value.trim() });
  return { state: objects.add(state, object), key: object.key };
}

function addStroke(line, isOutside) {
  if (stage.tool === "lasso") return begin({ area: [...line, line[0]] });
  return addMark(isOutside ? "outsideLines" : "insideLines", line, line[0]);
}

function addMark(part, mark, point) {
  const next = withMark(part, mark, point);
  if (!next) return say("Mark the inside of an object first, or select one: then mark what does not belong to it.", true);
  step(next.state);
  return answer(next.key);
}

function click(point, isShifted) {
  if (stage.tool === "select") return select(objects.objectAt(state, point)?.key ?? null);
  return CLICKS.includes(stage.tool) && addMark(sideOf(isShifted), point, point);
}

const sideOf = (isShifted) => ((stage.tool === "outside") !== isShifted ? "outside" : "inside");

// The state after a click or a scribble: one more mark of the selected object, or the first of a new one.
function withMark(part, mark, point) {
  const isOutside = part.startsWith("outside");
  const selected = objects.selectedOf(state);
  if (selected && (isOutside || objects.isNear(selected, point))) {
    const changes = { [part]: [...selected[part], mark], isAnswered: false };
    return { state: objects.change(state, selected.key, changes), key: selected.key };
  }
  return isOutside ? null : withNew({ [part]: [mark] });
}

function choose(direction) {
  const object = objects.selectedOf(state);
  if (!object || object.answers.length < 2) return say("There are no other candidates: they come with a click inside.");
  step(objects.change(state, object.key, { pick: objects.pick(object, direction) }));
  const now = objects.selectedOf(state);
  return say(`Candidate ${now.pick + 1} of ${now.answers.length}: ${describe(now)}.`);
}

// --- preview ---

function hover(point) {
  clearPreview();
  if (!point || !byId("preview").checked || !CLICKS.includes(stage.tool)) return;
  preview.timer = setTimeout(() => showPreview(point).catch(() => {}), PREVIEW_MS);
}

function clearPreview() {
  clearTimeout(preview.timer);
  preview.abort?.abort();
  stage.drawGhost(null);
}

async function showPreview(point) {
  if (waiting || search || !shown) return;
  const next = withMark(sideOf(false), point, point);
  if (!next) return;
  const object = objects.find(next.state, next.key);
  const earlier = objects.answerOf(object) ?? object.start;
  const abort = new AbortController();
  preview.abort = abort;
  const body = request(object, earlier);
  const found = await askJson("/v1/prepare", { method: "POST", body, signal: abort.signal });
  if (!abort.signal.aborted) stage.drawGhost(found?.features[0]?.geometry);
}

// --- objects ---

function select(key) {
  state = { ...state, selected: key };
  const object = objects.selectedOf(state);
  show();
  if (!object) return say("Nothing is selected.");
  const found = objects.answerOf(object);
  if (found) stage.show(objects.boundsOf(found.geometry));
  return say(`Selected: ${object.className || "no class"}${found ? `, ${describe(object)}` : ""}.`);
}

function removeSelected() {
  const object = objects.selectedOf(state);
  if (!object) return say("Select an object first.");
  step(objects.remove(state, object.key));
  return say("Removed.");
}

function setClass() {
  const className = byId("class").value.trim();
  const object = objects.selectedOf(state);
  if (object && object.className !== className) step(objects.change(state, object.key, { className }));
}

function beginNext() {
  state = { ...state, selected: null };
  show();
  say("The next click or rectangle begins an object.");
}

// --- find ---

async function findLike() {
  const object = objects.selectedOf(state);
  if (!object || !objects.answerOf(object) || search) return;
  if (objects.isUnwanted(object)) return say("What has a class that ends in * is not wanted: select another object.", true);
  const view = byId("in-view").checked ? stage.view : null;
  const body = { slide: shown.slide, ...objects.askToFind(state, object, view) };
  search = new AbortController();
  step(state);
  say("Searching…");
  try {
    const count = await addFound(body, search.signal);
    say(count
      ? `${count} found. Remove wrong ones and search again: they are not found again, nor what looks like them.`
      : "Nothing was found: select another object, or look in another area.");
  } catch (error) {
    if (error.name === "AbortError") say("The search was stopped. What was found stays.");
    else fail(error);
  } finally {
    search = null;
    show();
  }
}

async function addFound(body, signal) {
  const slide = shown;
  let [count, fresh, last] = [0, [], performance.now()];
  const flush = () => {
    if (shown !== slide) return;
    state = objects.addFound(state, fresh);
    [count, fresh, last] = [count + fresh.length, [], performance.now()];
    show();
    say(`${count} found so far…`);
  };
  try {
    for await (const feature of askRecords("/v1/find", body, signal)) {
      if (feature.geometry) fresh.push(feature);
      if (performance.now() - last > SHOW_FOUND_MS) flush();
    }
  } finally {
    if (fresh.length) flush();
  }
  return count;
}

// --- slides and files ---

function save() {
  saving = saving.then(() => write(saved.file ?? saved.free, saved.sha256)).catch(fail);
}

async function write(name, replaces) {
  if (!shown) return say("Choose a slide first.", true);
  const [slide, kept] = [shown, state.objects];
  const body = { slide: slide.name, file: name, replaces, features: objects.toFeatures(kept) };
  try {
    const written = await askJson("/view/objects", { method: "PUT", body });
    if (shown !== slide) return;
    saved = { ...saved, file: written.file, sha256: written.sha256, objects: kept };
    show();
    say(`Saved ${body.features.length} objects as ${written.file} beside the slide.`);
  } catch (error) {
    if (LOST.includes(error.problem)) {
      download(name, JSON.stringify({ type: "FeatureCollection", features: body.features }));
      throw new Problem(0, `${error.message} The objects are in this browser's downloads, as ${name}.`);
    }
    if (error.problem !== "file-exists") throw error;
    const { free_name: free } = await askJson(`/view/objects?${slideQuery(shown.name)}`);
    const other = await askUser(error.message, "Name", free);
    if (other) await write(other, null);
    else say("Not saved.", true);
  }
}

async function openSlide(name) {
  say("Opening the slide…");
  search?.abort();
  clearPreview();
  shown = await askJson(`/view/slide?${slideQuery(name)}`);
  state = objects.EMPTY;
  past = [];
  saved = { file: null, sha256: null, free: "", objects: state.objects };
  stage.open(shown);
  byId("slide-name").textContent = name;
  history.replaceState(null, "", `#${slideQuery(name)}`);
  show();
  await loadObjects(name);
}

async function loadObjects(name) {
  const found = await askJson(`/view/objects?${slideQuery(name)}`);
  const { file, sha256, free_name: free, features, trouble } = found;
  state = objects.fromFeatures(features);
  saved = { file, sha256, free, objects: state.objects };
  show();
  if (trouble) say(trouble, true);
  else say(file ? `${state.objects.length} objects of ${file}.` : "Draw a rectangle around an object, or click inside of it.");
}

async function changeSlide() {
  const name = byId("slides").value;
  const isFree = !isDirty() || (await askUser("The objects of this slide are not saved. Leave them?")) !== null;
  if (isFree) await openSlide(name).catch(fail);
  if (shown) byId("slides").value = shown.name; // the one of before if it stays, or the other cannot be shown
}

async function watchModel() {
  const info = await askJson("/v1/info");
  showModel(info);
  if (info.state === "loading") setTimeout(() => watchModel().catch(fail), 1000);
}

// --- keys and buttons ---

const TOOLS = { v: "select", r: "rectangle", i: "inside", o: "outside", b: "scribble", a: "lasso" };
const KEYS = {
  z: undo, n: beginNext, "[": () => choose(-1), "]": () => choose(1), f: findLike, s: save,
  c: () => byId("class").select(), l: () => byId("objects").querySelector("button")?.focus(),
  delete: removeSelected, backspace: removeSelected, escape: stop,
};

function useTool(tool) {
  stage.setTool(tool);
  showTool(tool);
}

// Keys on the slide; whether one was known.
function pressed(event) {
  const key = event.key.toLowerCase();
  if (key in TOOLS) useTool(TOOLS[key]);
  else if (key in KEYS) KEYS[key]();
  else return false;
  return true;
}

function stop() {
  if (stage.cancel()) return say("What was begun is given up.");
  if (search) return search.abort();
  return beginNext();
}

function pressedAnywhere(event) {
  const key = event.key.toLowerCase();
  const isTyping = event.target.matches("input:not([type=checkbox])");
  if ((event.ctrlKey || event.metaKey) && key === "s") save();
  else if ((event.ctrlKey || event.metaKey) && key === "z" && !isTyping) undo();
  else if (key === "delete" && event.target.matches("#objects button")) removeSelected();
  else if (key === "escape" && !byId("ask").open) byId("stage").focus();
  else return;
  event.preventDefault();
}

function listen() {
  const onClick = {
    undo, new: beginNext, remove: removeSelected, find: findLike, stop: () => search?.abort(), save,
    previous: () => choose(-1), following: () => choose(1),
    "zoom-in": () => stage.zoom(1.5), "zoom-out": () => stage.zoom(1 / 1.5), whole: () => stage.home(),
  };
  for (const [id, action] of Object.entries(onClick)) byId(id).addEventListener("click", () => action());
  for (const button of document.querySelectorAll("button[data-tool]")) {
    button.addEventListener("click", () => useTool(button.dataset.tool));
  }
  byId("class").addEventListener("change", setClass);
  byId("slides").addEventListener("change", changeSlide);
  document.addEventListener("keydown", pressedAnywhere);
  window.addEventListener("beforeunload", (event) => isDirty() && event.preventDefault());
}

async function start() {
  if (!(await takeToken())) setToken((await askUser("The page needs the token that the terminal shows.", "Token")) ?? "");
  listen();
  useTool("select");
  const wanted = new URLSearchParams(location.hash.slice(1)).get("slide");
  const { slides } = await askJson("/view/slides");
  byId("slides").replaceChildren(...slides.map((name) => new Option(name, name)));
  byId("slides").parentElement.hidden = slides.length < 2;
  byId("slide-name").hidden = slides.length > 1;
  const name = slides.includes(wanted) ? wanted : slides[0];
  byId("slides").value = name;
  watchModel().catch(fail);
  await openSlide(name);
  byId("stage").focus();
}

start().catch(fail);
