// What stands beside the slide: messages, the list of objects, the questions.

import { answerOf, colorOf, selectedOf } from "./objects.js";
import { svg } from "./stage.js";

const MOST_LISTED = 300;

export const byId = (id) => document.getElementById(id);

export function say(text, isBad = false) {
  const status = byId("status");
  status.textContent = text;
  status.classList.toggle("bad", isBad);
}

export function describe(object) {
  const measured = answerOf(object)?.properties.measurements ?? {};
  const area = measured["Area µm^2"];
  const score = measured["Predicted IoU"];
  const words = [];
  if (area !== undefined) words.push(`${Math.round(area).toLocaleString("en")} µm²`);
  if (score !== undefined) words.push(score.toFixed(2));
  return words.join(", ");
}

function nameOf(object) {
  return object.className || "no class";
}

// The list; of very many objects the last ones, and always the selected one.
export function showList(state, onSelect) {
  const listed = state.objects.slice(-MOST_LISTED);
  const chosen = selectedOf(state);
  if (chosen && !listed.includes(chosen)) listed.unshift(chosen);
  const focused = document.activeElement?.dataset?.key;
  byId("objects").replaceChildren(...listed.reverse().map((one) => makeRow(one, state, onSelect)));
  const more = state.objects.length - listed.length;
  byId("more").hidden = more === 0;
  byId("more").textContent = `and ${more} more`;
  byId("list-title").textContent = `Objects (${state.objects.length})`;
  if (focused) byId("objects").querySelector(`[data-key="${focused}"]`)?.focus();
}

function makeRow(object, state, onSelect) {
  const row = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "show";
  button.dataset.key = object.key;
  button.setAttribute("aria-current", String(object.key === state.selected));
  const swatch = svg("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" });
  swatch.append(svg("rect", { width: 1, height: 1, fill: `rgb(${colorOf(object).join(" ")})` }));
  const name = document.createElement("span");
  name.textContent = nameOf(object);
  const numbers = document.createElement("span");
  numbers.className = "numbers";
  numbers.textContent = answerOf(object) ? describe(object) : object.isAnswered ? "no outline" : "…";
  button.append(swatch, name, numbers);
  button.addEventListener("click", () => onSelect(object.key));
  row.append(button);
  return row;
}

export function showCandidates(object) {
  const count = object?.answers.length ?? 0;
  byId("candidates").hidden = count < 2;
  byId("candidate").textContent = count < 2 ? "" : `${object.pick + 1} of ${count}`;
}

export function showTool(tool) {
  for (const button of document.querySelectorAll("[data-tool]")) {
    if (button.id !== "stage") button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  }
}

export function showModel({ state, failure, model }) {
  const words = { loading: "The model is being loaded…", failed: `No model: ${failure}` };
  byId("model").textContent = words[state] ?? [model.base, model.adapter].filter(Boolean).join(" with ");
}

export function offerClasses(names) {
  const options = names.map((name) => Object.assign(document.createElement("option"), { value: name }));
  byId("classes").replaceChildren(...options);
}

// Hands a file to the browser's downloads.
export function download(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/geo+json" }));
  link.download = name;
  link.click();
}

// Asks a question; the answer, or null where it was cancelled. Without a label it is yes or no.
export function askUser(question, label = "", value = "") {
  const dialog = byId("ask");
  byId("question").textContent = question;
  byId("answer-label").textContent = label;
  byId("answer").parentElement.hidden = !label;
  byId("answer").value = value;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const end = () => resolve(dialog.returnValue === "ok" ? byId("answer").value.trim() : null);
    dialog.addEventListener("close", end, { once: true });
  });
}
