// The objects of a slide and what is done to them. No page and no network: values, and functions of
// them. Nothing is changed in place, so that undo is the state of before.
//
// state: { objects, selected, rejected }
// object: { key, box, area, inside, outside, insideLines, outsideLines, answers, pick, isAnswered,
//           className, start, isFound }
//   box         [x0, y0, x1, y1] or null; area: a closed ring or null; both level-0 px, as all here
//   inside, outside  lists of [x, y]; insideLines, outsideLines: lists of lines, which are such lists
//   answers     features that the server answered with, the surest first; pick: which one counts
//   isAnswered  whether the answers are those to the prompts as they are now
//   start       the feature that clicks correct, of an object that was loaded or found; else null
//   rejected    found features that were removed: what the next search does not want

export const EMPTY = { objects: [], selected: null, rejected: [] };

// As in a new project of QuPath.
const COLORS = {
  Tumor: [200, 0, 0], Stroma: [150, 200, 150], "Immune cells": [160, 90, 160],
  Necrosis: [50, 50, 50], Other: [255, 200, 0], Positive: [250, 62, 62], Negative: [112, 112, 225],
};
const NO_CLASS = [20, 110, 220];

export const KNOWN_CLASSES = Object.keys(COLORS);

export function makeObject(given) {
  const blank = {
    key: crypto.randomUUID(), box: null, area: null, inside: [], outside: [], insideLines: [],
    outsideLines: [], answers: [], pick: 0,
    isAnswered: false, className: "", start: null, isFound: false,
  };
  return { ...blank, ...given };
}

export function fromFeature(given, isFound = false) {
  const feature = { ...given, properties: given.properties ?? {} };
  const className = readClass(feature);
  return makeObject({ answers: [feature], start: feature, className, isFound, isAnswered: true });
}

export function fromFeatures(features) {
  const objects = features.filter((one) => one.geometry).map((one) => fromFeature(one));
  return { ...EMPTY, objects };
}

// Whether an object is still drawn as it was.
export function isSame(object, before) {
  const parts = ["box", "area", "inside", "outside", "insideLines", "outsideLines"];
  return parts.every((part) => object[part] === before[part]);
}

export const find = (state, key) => state.objects.find((one) => one.key === key) ?? null;

export const selectedOf = (state) => find(state, state.selected);

export function add(state, object) {
  return { ...state, objects: [...state.objects, object], selected: object.key };
}

export function addFound(state, features) {
  const objects = features.map((feature) => fromFeature(feature, true));
  return { ...state, objects: [...state.objects, ...objects] };
}

export function change(state, key, changes) {
  const objects = state.objects.map((one) => (one.key === key ? { ...one, ...changes } : one));
  return { ...state, objects };
}

export function remove(state, key) {
  const gone = find(state, key);
  if (!gone) return state;
  const index = state.objects.indexOf(gone);
  const objects = state.objects.filter((one) => one !== gone);
  const rejected = gone.isFound ? [...state.rejected, gone.start] : state.rejected;
  return { objects, rejected, selected: objects[Math.min(index, objects.length - 1)]?.key ?? null };
}

export function answerOf(object) {
  return object.answers[object.pick] ?? null;
}

export function pick(object, step) {
  const count = object.answers.length;
  return count ? (object.pick + step + count) % count : 0;
}

export function readClass(feature) {
  const stated = feature.properties?.classification;
  if (typeof stated === "string") return stated;
  return stated?.names?.join(": ") ?? stated?.name ?? "";
}

function readColor(feature) {
  const stated = feature?.properties?.classification?.color;
  return Array.isArray(stated) && stated.length >= 3 ? stated.slice(0, 3) : null;
}

// A color of its own for every other name, the same each time.
function makeColor(name) {
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) % 9973;
  const hue = (hash * 137) % 360;
  const channel = (shift) => {
    const k = (shift + hue / 30) % 12;
    return Math.round(255 * (0.4 - 0.36 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

export function colorOf(object) {
  const name = object.className;
  if (!name) return NO_CLASS;
  const answer = answerOf(object);
  const own = answer && readClass(answer) === name ? readColor(answer) : null;
  return own ?? (Object.hasOwn(COLORS, name) ? COLORS[name] : makeColor(name));
}

// Whether an object says what is not looked for, as a class does that QuPath ignores.
export const isUnwanted = (object) => object.className.endsWith("*");

// Objects as they are saved: the chosen answers, with their classes.
export function toFeatures(objects) {
  return objects.filter(answerOf).map((object) => {
    const answer = answerOf(object);
    if (readClass(answer) === object.className) return answer;
    const { classification, ...properties } = answer.properties;
    if (object.className) properties.classification = makeClassification(object);
    return { ...answer, properties };
  });
}

// QuPath keeps a derived class, such as "Tumor: Positive", by its names.
function makeClassification(object) {
  const names = object.className.split(":").map((name) => name.trim()).filter(Boolean);
  const color = colorOf(object);
  return names.length === 1 ? { name: names[0], color } : { names, color };
}

const feature = (id, type, coordinates, name) => ({
  type: "Feature", id, geometry: { type, coordinates },
  properties: { objectType: "annotation", ...(name && { classification: { name } }) },
});

export function boxRing([x0, y0, x1, y1]) {
  return [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]];
}

// What is asked for to find all like an object, in a box or anywhere; others are there already.
export function askToFind(state, object, box) {
  const others = state.objects.filter((one) => one !== object);
  return {
    examples: toFeatures([object]),
    known: toFeatures(others),
    negatives: [...state.rejected, ...toFeatures(others.filter(isUnwanted))],
    options: object.className ? { class: object.className } : {},
    ...(box && { within: [feature("area", "Polygon", boxRing(box))] }),
  };
}

// What is asked for: the prompts of an object, and the earlier answer that new marks correct.
export function askFor(object, earlier) {
  const { key, box, area, inside, outside, insideLines, outsideLines } = object;
  const marks = [
    [`${key}-in`, "MultiPoint", inside],
    [`${key}-out`, "MultiPoint", outside, "Ignore*"],
    [`${key}-over`, "MultiLineString", insideLines],
    [`${key}-off`, "MultiLineString", outsideLines, "Ignore*"],
  ].filter(([, , drawn]) => drawn.length);
  const corrects = earlier && marks.length;
  const prompts = marks.map((mark) => feature(...mark));
  if (box) prompts.unshift(feature(key, "Polygon", boxRing(box)));
  // What is corrected holds what the lasso said.
  if (area && !corrects) prompts.unshift(feature(key, "Polygon", [area]));
  const options = { candidates: inside.length || insideLines.length ? 3 : 1 };
  if (object.className) options.class = object.className;
  return { prompts, options, ...(corrects && { refine: earlier }) };
}

function rings(geometry) {
  if (geometry?.type === "Polygon") return geometry.coordinates;
  return geometry?.type === "MultiPolygon" ? geometry.coordinates.flat() : [];
}

export const toLine = (points) => `M${points.map(([x, y]) => `${x} ${y}`).join("L")}`;

export function toPath(geometry) {
  return rings(geometry).map((ring) => `${toLine(ring)}Z`).join("");
}

export function boundsOf(geometry) {
  const bounds = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of rings(geometry).flat()) {
    bounds[0] = Math.min(bounds[0], x);
    bounds[1] = Math.min(bounds[1], y);
    bounds[2] = Math.max(bounds[2], x);
    bounds[3] = Math.max(bounds[3], y);
  }
  return bounds;
}

// Whether a mark at a place is meant for an object: in its bounds, or half of its size around them.
export function isNear(object, [x, y]) {
  const found = answerOf(object);
  if (!found) return true;
  const [x0, y0, x1, y1] = boundsOf(found.geometry);
  const [dx, dy] = [(x1 - x0) / 2, (y1 - y0) / 2];
  return x >= x0 - dx && x <= x1 + dx && y >= y0 - dy && y <= y1 + dy;
}

function holds(geometry, [x, y]) {
  let inside = false;
  for (const ring of rings(geometry)) {
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
      const [xi, yi] = ring[i];
      const [xj, yj] = ring[j];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
    }
  }
  return inside;
}

// The smallest object at a place, as in QuPath the one that could not be reached otherwise.
export function objectAt(state, point) {
  const area = (object) => answerOf(object).properties.measurements?.["Area µm^2"] ?? Infinity;
  const hit = state.objects.filter((one) => answerOf(one) && holds(answerOf(one).geometry, point));
  return hit.sort((one, other) => area(one) - area(other))[0] ?? null;
}
