/** The map's picture and what hands do to it: drag, wheel, two fingers, lasso, keys. It knows points, not tracks. */

import { colours, eachFrame, sharpContext } from "./dom.js";
import { WHOLE, fair, moved, nearest, scaleOf, toMap, toScreen, zoomed } from "./map-geometry.js";

/** @typedef {import("./state.js").Camera} Camera */

const REACH = 14; // CSS pixels around a point that still mean it
const CLICK = 5; // a hand is never quite still
const SQUARE = 2.2; // CSS pixels: below, a square looks like a dot and is drawn six times as fast
const STEP = 0.15; // of the canvas an arrow key moves

export class MapCanvas {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {object} listeners
   * @param {(camera: Camera) => void} listeners.onMove it has come to rest
   * @param {(point: number, across: number, down: number) => void} listeners.onHover -1: none
   * @param {(point: number) => void} listeners.onChoose
   * @param {(corners: number[][]) => void} listeners.onLasso in map units
   * @param {() => void} listeners.onSelectAll
   */
  constructor(canvas, listeners) {
    this.canvas = canvas;
    this.listeners = listeners;
    /** @type {Camera} */
    this.camera = { ...WHOLE };
    /** @type {Float32Array} */
    this.places = new Float32Array(0); // x and y of each point in turn, in map units
    this.screen = new Float32Array(0); // the same in CSS pixels, as drawn last
    /** @type {string[]} */
    this.colours = [];
    /** @type {Uint8Array} */
    this.faint = new Uint8Array(0); // points that stand back
    /** @type {Set<number>} */
    this.ringed = new Set();
    /** @type {Set<number>} */
    this.chosen = new Set();
    this.playing = -1;
    this.near = -1;
    this.lassoing = false;
    /** @type {number[][]} in map units */
    this.lasso = [];
    /** @type {Map<number, {x: number, y: number}>} */
    this.fingers = new Map();
    this.drawing = false;
    this.travelled = 0;
    this.redraw = eachFrame(() => this.drawNow());
    new ResizeObserver(() => this.redraw()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => this.#up(event, true));
    canvas.addEventListener("pointerleave", () => this.#hover(-1, 0, 0));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => this.redraw());
    canvas.addEventListener("blur", () => this.redraw());
  }

  get size() {
    return { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
  }

  /** Whether keys move it, and what lies in the middle is what they mean. */
  get byKeys() {
    return document.activeElement === this.canvas && this.canvas.matches(":focus-visible");
  }

  /** @param {Float32Array} places */
  setPoints(places) {
    this.places = places;
    this.screen = new Float32Array(places.length);
    this.faint = new Uint8Array(places.length / 2);
    this.redraw();
  }

  /** @param {Camera | null} camera */
  look(camera) {
    this.camera = fair(camera ?? WHOLE);
    this.redraw();
  }

  /** @param {number} factor */
  zoom(factor) {
    this.camera = zoomed(this.camera, this.size, factor);
    this.#rest();
  }

  whole() {
    this.camera = { ...WHOLE };
    this.#rest();
  }

  /** The corners of what is in view, as a lasso around it. */
  viewCorners() {
    const { width, height } = this.size;
    return [[0, 0], [width, 0], [width, height], [0, height]].map(([across, down]) => toMap(this.camera, this.size, across, down));
  }

  /** The point nearest to the middle, which keys mean. */
  middle() {
    const { width, height } = this.size;
    return nearest(this.screen, width / 2, height / 2, Math.max(width, height));
  }

  /** @param {PointerEvent} event */
  #down(event) {
    if (event.button > 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    if (this.fingers.size === 1) {
      this.travelled = 0;
      this.drawing = this.lassoing || event.shiftKey;
      if (this.drawing) this.lasso = [toMap(this.camera, this.size, event.offsetX, event.offsetY)];
    } else {
      this.drawing = false; // a second finger makes it a pinch
      this.travelled = CLICK + 1;
    }
  }

  /** @param {PointerEvent} event */
  #move(event) {
    const finger = this.fingers.get(event.pointerId);
    if (!finger) {
      this.#hover(nearest(this.screen, event.offsetX, event.offsetY, REACH), event.offsetX, event.offsetY);
      return;
    }
    const [across, down] = [event.offsetX - finger.x, event.offsetY - finger.y];
    this.travelled += Math.hypot(across, down);
    const other = [...this.fingers].find(([id]) => id !== event.pointerId)?.[1];
    if (this.drawing) {
      const corner = toMap(this.camera, this.size, event.offsetX, event.offsetY);
      const last = this.lasso[this.lasso.length - 1];
      if (Math.hypot(corner[0] - last[0], corner[1] - last[1]) * scaleOf(this.camera, this.size) > 3) this.lasso.push(corner);
    } else if (other) {
      const before = Math.hypot(finger.x - other.x, finger.y - other.y) || 1;
      const after = Math.hypot(event.offsetX - other.x, event.offsetY - other.y);
      this.camera = zoomed(this.camera, this.size, after / before, (event.offsetX + other.x) / 2, (event.offsetY + other.y) / 2);
      this.camera = moved(this.camera, this.size, across / 2, down / 2);
    } else if (this.travelled > CLICK) {
      this.camera = moved(this.camera, this.size, across, down);
    }
    this.fingers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    this.redraw();
  }

  /**
   * @param {PointerEvent} event
   * @param {boolean} [cancelled]
   */
  #up(event, cancelled = false) {
    if (!this.fingers.delete(event.pointerId) || this.fingers.size) return;
    const click = this.travelled <= CLICK && !cancelled;
    if (this.drawing && !click && !cancelled && this.lasso.length > 2) this.listeners.onLasso(this.lasso);
    else if (this.drawing) this.lasso = [];
    this.drawing = false;
    if (click) {
      const point = nearest(this.screen, event.offsetX, event.offsetY, REACH);
      if (point >= 0) this.listeners.onChoose(point);
    } else if (!cancelled) this.#rest();
    this.redraw();
  }

  /** @param {WheelEvent} event */
  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    this.camera = zoomed(this.camera, this.size, Math.exp(-event.deltaY * lines * 0.002), event.offsetX, event.offsetY);
    this.redraw();
    clearTimeout(this.wheeling);
    this.wheeling = setTimeout(() => this.#rest(), 250);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { width, height } = this.size;
    /** @type {Record<string, () => void>} */
    const acts = {
      ArrowLeft: () => (this.camera = moved(this.camera, this.size, width * STEP, 0)),
      ArrowRight: () => (this.camera = moved(this.camera, this.size, -width * STEP, 0)),
      ArrowUp: () => (this.camera = moved(this.camera, this.size, 0, height * STEP)),
      ArrowDown: () => (this.camera = moved(this.camera, this.size, 0, -height * STEP)),
      "+": () => (this.camera = zoomed(this.camera, this.size, 1.4)),
      "=": () => (this.camera = zoomed(this.camera, this.size, 1.4)),
      "-": () => (this.camera = zoomed(this.camera, this.size, 1 / 1.4)),
      0: () => (this.camera = { ...WHOLE }),
    };
    const point = this.middle();
    if (acts[event.key]) {
      acts[event.key]();
      this.drawNow(); // at once: the point in the middle is another one
      this.#rest();
      this.#hover(this.middle(), width / 2, height / 2);
    } else if ((event.key === "Enter" || event.key === " ") && point >= 0) this.listeners.onChoose(point);
    else if (event.key.toLowerCase() === "s") this.listeners.onSelectAll();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #rest() {
    this.redraw();
    this.listeners.onMove(this.camera);
  }

  /**
   * @param {number} point
   * @param {number} across
   * @param {number} down
   */
  #hover(point, across, down) {
    if (point === this.near && point < 0) return;
    this.near = point;
    if (point >= 0) [across, down] = [this.screen[2 * point], this.screen[2 * point + 1]];
    this.canvas.style.cursor = point >= 0 ? "pointer" : "";
    this.listeners.onHover(point, across, down);
    this.redraw();
  }

  /** Draws at once; what need not be there before the next frame asks for `redraw`. */
  drawNow() {
    if (!this.canvas.clientWidth) return;
    const { context, width, height } = sharpContext(this.canvas);
    const count = this.places.length / 2;
    for (let at = 0; at < count; at += 1) {
      this.screen.set(toScreen(this.camera, { width, height }, this.places[2 * at], this.places[2 * at + 1]), 2 * at);
    }
    const radius = Math.max(1.7, Math.min(5, 110 / Math.sqrt(count || 1))) * Math.min(2.2, Math.sqrt(this.camera.zoom));
    if (this.lasso.length > 1) this.#drawLasso(context, { width, height }); // below what it holds
    this.#drawDots(context, { width, height }, radius);
    this.#drawRings(context, radius);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {import("./map-geometry.js").Size} size
   * @param {number} radius
   */
  #drawDots(context, { width, height }, radius) {
    const [rest] = colours("dot");
    const picture = dots(radius);
    // Those that stand back lie behind.
    for (const faint of [1, 0]) {
      context.globalAlpha = faint ? 0.28 : 0.85;
      for (let at = 0; at < this.faint.length; at += 1) {
        const [across, down] = [this.screen[2 * at], this.screen[2 * at + 1]];
        if (this.faint[at] !== faint || across < -9 || down < -9 || across > width + 9 || down > height + 9) continue;
        const colour = this.colours[at] || rest;
        if (radius < SQUARE) {
          context.fillStyle = colour;
          context.fillRect(across - radius, down - radius, 2 * radius, 2 * radius);
        } else {
          const { canvas, half } = picture(colour);
          context.drawImage(canvas, across - half, down - half, 2 * half, 2 * half);
        }
      }
    }
    context.globalAlpha = 1;
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {import("./map-geometry.js").Size} size
   */
  #drawLasso(context, size) {
    const [accent, soft] = colours("accent", "accent-soft");
    context.beginPath();
    for (const [x, y] of this.lasso) context.lineTo(...toScreen(this.camera, size, x, y));
    context.closePath();
    context.fillStyle = soft;
    context.globalAlpha = 0.45;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = accent;
    context.lineWidth = 1.5;
    context.setLineDash([4, 3]);
    context.stroke();
    context.setLineDash([]);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} radius
   */
  #drawRings(context, radius) {
    const [ink, accent] = colours("ink", "accent");
    const ring = (/** @type {number} */ at, /** @type {number} */ more, /** @type {string} */ colour, /** @type {number} */ line) => {
      context.beginPath();
      context.arc(this.screen[2 * at], this.screen[2 * at + 1], radius + more, 0, 2 * Math.PI);
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.stroke();
    };
    for (const at of this.chosen) ring(at, 1.5, accent, 1);
    for (const at of this.ringed) ring(at, 3, ink, 1.5);
    if (this.playing >= 0) ring(this.playing, 5, accent, 3);
    const near = this.near < 0 && this.byKeys ? this.middle() : this.near;
    if (near >= 0) ring(near, 4, ink, 2);
  }
}

/**
 * Pictures of a dot by colour: copying one is faster than drawing a circle.
 * @param {number} radius CSS pixels
 */
function dots(radius) {
  /** @type {Map<string, {canvas: HTMLCanvasElement, half: number}>} */
  const made = new Map();
  const ratio = window.devicePixelRatio || 1;
  const half = Math.ceil(radius + 1);
  return (/** @type {string} */ colour) => {
    let dot = made.get(colour);
    if (!dot) {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = Math.ceil(2 * half * ratio);
      const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
      context.scale(ratio, ratio);
      context.beginPath();
      context.arc(half, half, radius, 0, 2 * Math.PI);
      context.fillStyle = colour;
      context.fill();
      dot = { canvas, half };
      made.set(colour, dot);
    }
    return dot;
  };
}
