// The slide in the window: tiles, the objects on top of them, and what pointer and keys do there.
// All points that go in and out are level-0 px.

import { answerOf, boxRing, colorOf, toLine, toPath } from "./objects.js";
import { authorization, slideQuery } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";
const MARK_PX = 5;
const CROSS_PX = 14;
const SMALLEST_BOX_PX = 4;
const KEY_STEP = 0.12;
const STROKE_STEP_PX = 3;
const STROKES = ["scribble", "lasso"];

export function svg(name, attributes = {}) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

export class Stage {
  // on: { click(point, isShifted), box(box), stroke(line, isShifted), hover(point or null), key(event) }
  constructor(element, on) {
    this.element = element;
    this.on = on;
    this.tool = "select";
    this.corner = null;
    this.line = null;
    this.paths = new Map();
    this.viewer = OpenSeadragon({
      element: element.querySelector("#tiles"),
      showNavigationControl: false,
      drawer: "canvas",
      animationTime: 0.25,
      imageLoaderLimit: 12,
      immediateRender: true,
      minPixelRatio: 0.75,
      maxZoomPixelRatio: 10,
      visibilityRatio: 0.3,
      loadTilesWithAjax: true,
      timeout: 180000,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
    });
    this.viewer.canvas.tabIndex = -1;
    this.makeOverlay();
    this.listen();
  }

  makeOverlay() {
    const overlay = this.element.querySelector("#overlay");
    this.layer = svg("g");
    this.ghost = svg("path", { class: "ghost" });
    this.stroke = svg("path", { class: "box" });
    this.box = svg("rect", { class: "box", visibility: "hidden" });
    this.marks = svg("g");
    this.outlines = svg("g");
    this.layer.append(this.outlines, this.ghost, this.box, this.stroke, this.marks);
    this.crosses = ["cross halo", "cross"].map((name) => svg("path", { class: name }));
    overlay.append(this.layer, ...this.crosses);
  }

  listen() {
    const viewer = this.viewer;
    for (const event of ["update-viewport", "open", "resize"]) viewer.addHandler(event, () => this.place());
    viewer.addHandler("canvas-key", (event) => (event.preventDefaultAction = true));
    viewer.addHandler("canvas-press", () => this.element.focus({ preventScroll: true }));
    viewer.addHandler("canvas-click", (event) => {
      if (event.quick && this.item) {
        this.on.click(this.toSlide(event.position), event.originalEvent.shiftKey);
      }
    });
    viewer.addHandler("canvas-drag", (event) => this.drag(event));
    viewer.addHandler("canvas-pinch", () => this.cancel());
    viewer.addHandler("canvas-drag-end", (event) => {
      if (!this.corner && !this.line) return;
      event.preventDefaultAction = true;
      if (this.corner) this.endBox(this.toSlide(event.position));
      else this.endStroke(event.originalEvent.shiftKey);
    });
    this.element.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch" || !this.item) return;
      const { left, top } = this.element.getBoundingClientRect();
      this.on.hover(this.toSlide(new OpenSeadragon.Point(event.clientX - left, event.clientY - top)));
    });
    this.element.addEventListener("pointerleave", () => this.on.hover(null));
    this.element.addEventListener("keydown", (event) => this.press(event), { capture: true });
  }

  drag(event) {
    const isStroke = STROKES.includes(this.tool);
    if ((!isStroke && this.tool !== "rectangle") || !this.item) return;
    event.preventDefaultAction = true;
    const start = this.toSlide(event.position.minus(event.delta));
    const point = this.toSlide(event.position);
    if (isStroke) {
      this.line ??= [start];
      this.extend(point);
    } else {
      this.corner ??= start;
      this.showBox(point);
    }
  }

  // Goes on with a line, unless it is where the line has been; whether it did.
  extend([x, y]) {
    const [lastX, lastY] = this.line.at(-1);
    if (Math.hypot(x - lastX, y - lastY) * this.scale < STROKE_STEP_PX) return false;
    this.line.push([x, y]);
    this.stroke.setAttribute("d", toLine(this.line));
    return true;
  }

  endStroke(isShifted) {
    const line = this.line;
    this.cancel();
    if (line.length > 2) this.on.stroke(line, isShifted);
  }

  get item() {
    return this.viewer.world.getItemAt(0) ?? null;
  }

  open(shown) {
    this.shown = shown;
    this.cancel();
    this.viewer.setAjaxHeaders(authorization(), false);
    this.viewer.open({
      width: shown.slide.width,
      height: shown.slide.height,
      tileSize: shown.tile_px,
      tileOverlap: 0,
      minLevel: shown.first_level,
      maxLevel: shown.top_level,
      getTileUrl: (level, column, row) =>
        `/view/tiles/${level}/${column}/${row}?${slideQuery(shown.name)}`,
    });
  }

  toSlide(position) {
    const { x, y } = this.item.viewerElementToImageCoordinates(position);
    return [x, y];
  }

  get center() {
    const { clientWidth, clientHeight } = this.element;
    return this.toSlide(new OpenSeadragon.Point(clientWidth / 2, clientHeight / 2));
  }

  // The visible part of the slide, or null where none is.
  get view() {
    const { clientWidth, clientHeight } = this.element;
    const { width, height } = this.shown.slide;
    const [x0, y0] = this.toSlide(new OpenSeadragon.Point(0, 0));
    const [x1, y1] = this.toSlide(new OpenSeadragon.Point(clientWidth, clientHeight));
    const box = [Math.max(0, x0), Math.max(0, y0), Math.min(width, x1), Math.min(height, y1)];
    return box[0] < box[2] && box[1] < box[3] ? box : null;
  }

  // Screen px per level-0 px.
  get scale() {
    const at = (x) => this.item.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, 0)).x;
    return (at(1000) - at(0)) / 1000;
  }

  place() {
    if (!this.item) return;
    const { x, y } = this.item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    this.layer.setAttribute("transform", `translate(${x} ${y}) scale(${this.scale})`);
    for (const mark of this.marks.querySelectorAll("circle")) mark.setAttribute("r", MARK_PX / this.scale);
    const { clientWidth: width, clientHeight: height } = this.element;
    const [cx, cy] = [Math.round(width / 2), Math.round(height / 2)];
    const cross = `M${cx - CROSS_PX} ${cy}h${2 * CROSS_PX}M${cx} ${cy - CROSS_PX}v${2 * CROSS_PX}`;
    for (const one of this.crosses) one.setAttribute("d", cross);
    if (this.isByKeys) this.showBox(this.center);
    this.showScale();
  }

  showScale() {
    const umPerPx = this.shown.mpp / this.scale;
    const most = 120 * umPerPx;
    const ten = 10 ** Math.floor(Math.log10(most));
    const um = [5, 2, 1].map((one) => one * ten).find((one) => one <= most);
    const bar = this.element.querySelector("#scale");
    bar.style.width = `${um / umPerPx}px`;
    bar.textContent = um >= 1000 ? `${um / 1000} mm` : `${um} µm`;
  }

  // Draws objects; of those that are the same as before nothing is touched.
  draw(state) {
    const before = this.paths;
    this.paths = new Map();
    for (const object of state.objects) {
      const known = before.get(object.key);
      before.delete(object.key);
      const path = known?.object === object ? known.path : this.drawOutline(object, known?.path);
      const name = object.key === state.selected ? "selected" : "";
      if (path.getAttribute("class") !== name) path.setAttribute("class", name);
      this.paths.set(object.key, { object, path });
    }
    for (const { path } of before.values()) path.remove();
    this.drawMarks(state.objects.find((one) => one.key === state.selected));
  }

  drawOutline(object, path) {
    const outline = path ?? this.outlines.appendChild(svg("path", { "fill-rule": "evenodd" }));
    const color = `rgb(${colorOf(object).join(" ")})`;
    const answer = answerOf(object);
    outline.setAttribute("d", answer ? toPath(answer.geometry) : "");
    outline.setAttribute("stroke", color);
    outline.setAttribute("fill", color);
    return outline;
  }

  drawMarks(object) {
    const circle = (name) => ([cx, cy]) => svg("circle", { class: name, cx, cy, r: MARK_PX / this.scale });
    const stroke = (name) => (line) => svg("path", { class: name, d: toLine(line) });
    this.marks.replaceChildren();
    if (!object) return;
    const drawn = [object.box && boxRing(object.box)[0], object.area].filter(Boolean);
    this.marks.append(
      ...drawn.map(stroke("box")),
      ...object.insideLines.map(stroke("over")), ...object.outsideLines.map(stroke("off")),
      ...object.inside.map(circle("in")), ...object.outside.map(circle("out")),
    );
  }

  drawGhost(geometry) {
    this.ghost.setAttribute("d", geometry ? toPath(geometry) : "");
  }

  showBox([x, y]) {
    const [cx, cy] = this.corner;
    const sides = { x: Math.min(cx, x), y: Math.min(cy, y), width: Math.abs(cx - x), height: Math.abs(cy - y) };
    for (const [key, value] of Object.entries(sides)) this.box.setAttribute(key, value);
    this.box.setAttribute("visibility", "visible");
  }

  endBox([x, y]) {
    const [cx, cy] = this.corner;
    this.cancel();
    const box = [Math.min(cx, x), Math.min(cy, y), Math.max(cx, x), Math.max(cy, y)];
    const least = SMALLEST_BOX_PX / this.scale;
    if (box[2] - box[0] >= least && box[3] - box[1] >= least) this.on.box(box);
  }

  // Gives up a rectangle that was begun; whether there was one.
  cancel() {
    const was = this.corner !== null || this.line !== null;
    this.corner = null;
    this.line = null;
    this.stroke.setAttribute("d", "");
    this.isByKeys = false;
    this.box.setAttribute("visibility", "hidden");
    return was;
  }

  setTool(tool) {
    this.cancel();
    this.tool = tool;
    this.element.dataset.tool = tool;
    this.drawGhost(null);
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.item) return;
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in steps) this.pan(steps[event.key], event.shiftKey);
    else if (event.key === "Enter") this.act(event.shiftKey);
    else if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else if (event.key === "0") this.home();
    else if (!this.on.key(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  pan([x, y], isFine) {
    const { clientWidth, clientHeight } = this.element;
    const px = isFine ? 4 : KEY_STEP * Math.min(clientWidth, clientHeight);
    const viewport = this.viewer.viewport;
    viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(x * px, y * px)), true);
    viewport.applyConstraints(true);
    this.viewer.forceRedraw();
  }

  // What a click does, at the cross; a rectangle takes two, a line one at each bend and one more.
  act(isShifted) {
    if (STROKES.includes(this.tool)) {
      if (!this.line) this.line = [this.center];
      else if (!this.extend(this.center)) this.endStroke(isShifted);
    } else if (this.tool !== "rectangle") this.on.click(this.center, isShifted);
    else if (this.isByKeys) this.endBox(this.center);
    else {
      this.corner = this.center;
      this.isByKeys = true;
      this.showBox(this.center);
    }
  }

  zoom(factor) {
    this.viewer.viewport.zoomBy(factor);
    this.viewer.viewport.applyConstraints();
  }

  home() {
    this.viewer.viewport.goHome();
  }

  // Moves to an object where it is not in view.
  show([x0, y0, x1, y1]) {
    const view = this.view;
    const isSeen = view && x0 >= view[0] && y0 >= view[1] && x1 <= view[2] && y1 <= view[3];
    if (isSeen || !this.item) return;
    const margin = Math.max(x1 - x0, y1 - y0);
    const box = [x0 - margin, y0 - margin, x1 - x0 + 2 * margin, y1 - y0 + 2 * margin];
    this.viewer.viewport.fitBounds(this.item.imageToViewportRectangle(...box));
  }
}
