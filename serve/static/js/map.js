/** The map of the catalogue: which tracks lie where, what is selected, and what is played from it. */

import { byId, el } from "./dom.js";
import { plural, titleOf } from "./format.js";
import { MapCanvas } from "./map-canvas.js";
import { MapColours } from "./map-colours.js";
import { inside, thinned } from "./map-geometry.js";
import { MapList } from "./map-list.js";
import { announce, failure } from "./notices.js";

/** @typedef {import("./types.js").Point} Point @typedef {import("./types.js").Hit} Hit @typedef {import("./state.js").State} State */

const MOUSE = "Drag to move, wheel to zoom, click to play.";
const TOUCH = "Drag to move, pinch to zoom, tap to play.";
const CORNERS = 40; // of a lasso, so that the address stays short

export class MapView {
  /**
   * @param {object} parts
   * @param {import("./api.js").Api} parts.api
   * @param {import("./tags.js").Tags} parts.tags
   * @param {import("./player.js").Player} parts.player
   * @param {(changes: Partial<State>, how?: "step" | "silent") => void} parts.onChange
   * @param {(points: Point[]) => void} parts.onLike
   * @param {() => boolean} parts.isDark
   */
  constructor({ api, tags, player, onChange, onLike, isDark }) {
    this.api = api;
    this.tags = tags;
    this.player = player;
    /** @type {State | null} */
    this.state = null;
    /** @type {Point[] | null} */
    this.points = null;
    /** @type {Map<string, number>} */
    this.placeOf = new Map();
    /** @type {Hit[]} */
    this.hits = [];
    /** The camera of the address as it was last looked at. @type {string | null} */
    this.looked = null;
    this.announced = "[]";
    this.canvas = new MapCanvas(/** @type {HTMLCanvasElement} */ (byId("map-canvas")), {
      onMove: (camera) => {
        this.looked = JSON.stringify(camera);
        onChange({ camera }, "silent");
      },
      onHover: (point, across, down) => this.#tip(point, across, down),
      onChoose: (point) => this.points && this.#play(this.points[point]),
      onLasso: (corners) => onChange({ lasso: thinned(corners, CORNERS) }),
      onSelectAll: () => onChange({ lasso: this.canvas.viewCorners() }),
    });
    this.colours = new MapColours({ onChoose: (colour) => onChange({ colour }), onFocus: () => this.repaint(), isDark });
    this.list = new MapList(player, (point) => this.#play(point));
    const lasso = byId("map-lasso");
    lasso.addEventListener("click", () => {
      this.canvas.lassoing = !this.canvas.lassoing;
      lasso.setAttribute("aria-pressed", String(this.canvas.lassoing));
      byId("map").classList.toggle("lassoing", this.canvas.lassoing);
    });
    byId("map-in").addEventListener("click", () => this.canvas.zoom(1.5));
    byId("map-out").addEventListener("click", () => this.canvas.zoom(1 / 1.5));
    byId("map-fit").addEventListener("click", () => this.canvas.whole());
    byId("map-all").addEventListener("click", () => onChange({ lasso: this.canvas.viewCorners() }));
    byId("map-like").addEventListener("click", () => onLike(this.list.points));
    byId("map-clear").addEventListener("click", () => {
      onChange({ lasso: [] });
      byId("map-list-title").focus();
    });
    player.addEventListener("change", () => this.#showPlayer());
  }

  /** What the list holds, with all that is known of it, for an export. @returns {import("./types.js").Listed[]} */
  get listed() {
    const hits = new Map(this.hits.map((hit) => [hit.id, hit]));
    return this.list.points.map((point) => ({ ...point, ...hits.get(point.id) }));
  }

  /** Another catalogue has taken the place of the one before. */
  reset() {
    this.points = null;
  }

  /** @param {State} state */
  async open(state) {
    this.state = state;
    if (this.points === null) {
      byId("map-note").textContent = "Drawing the map …";
      try {
        const [map, tags] = await Promise.all([this.api.get("v1/map"), this.tags.load().catch(() => [])]);
        this.#setPoints(map.points, map.method, tags);
        byId("map-notice").replaceChildren();
      } catch (error) {
        byId("map-note").textContent = "";
        const again = () => this.state && this.open(this.state);
        byId("map-notice").replaceChildren(failure(/** @type {Error} */ (error), "The map did not come", again));
        return;
      }
    }
    this.#show(this.state);
  }

  /** @param {Hit[]} hits */
  setHits(hits) {
    this.hits = hits;
    if (this.points && this.state) this.#select(this.state);
  }

  /** Colours have changed, or what they mean. */
  repaint() {
    if (!this.points || !this.state) return;
    const { colours, faint } = this.colours.paint(this.state.colour);
    this.canvas.colours = colours;
    this.canvas.faint = faint;
    this.canvas.redraw();
  }

  /** @param {State} state */
  #show(state) {
    const camera = JSON.stringify(state.camera);
    // What the hand has just done is not done again.
    if (camera !== this.looked) this.canvas.look(state.camera);
    this.looked = camera;
    this.repaint();
    this.#select(state);
  }

  /**
   * @param {Point[]} points
   * @param {string} method
   * @param {import("./types.js").Tag[]} tags
   */
  #setPoints(points, method, tags) {
    this.points = points;
    this.placeOf = new Map(points.map(({ id }, at) => [id, at]));
    const places = new Float32Array(2 * points.length);
    points.forEach(({ x, y }, at) => places.set([x, y], 2 * at));
    this.canvas.setPoints(places);
    this.colours.setPoints(points, tags);
    byId("map").hidden = !points.length;
    byId("map-note").textContent = points.length
      ? `${plural(points.length, "track")}, ${method}. ${matchMedia("(pointer: coarse)").matches ? TOUCH : MOUSE}`
      : "There are too few tracks for a map.";
  }

  /** Fills the list: the lasso's tracks, or without one the hits of the search. @param {State} state */
  #select({ lasso }) {
    const points = /** @type {Point[]} */ (this.points ?? []);
    const found = this.hits.map(({ id }) => this.placeOf.get(id)).filter((place) => place !== undefined);
    const order = new Map(found.map((place, at) => [points[place].id, at]));
    const listed = lasso.length ? points.filter(({ x, y }) => inside(lasso, x, y)) : found.map((place) => points[place]);
    // What was searched for comes first in a selection too; the sort keeps the rest as it was.
    if (lasso.length) listed.sort((a, b) => (order.get(a.id) ?? points.length) - (order.get(b.id) ?? points.length));
    this.canvas.lasso = lasso;
    this.canvas.chosen = new Set(lasso.length ? listed.map(({ id }) => this.placeOf.get(id) ?? -1) : []);
    this.canvas.ringed = new Set(found);
    this.canvas.redraw();
    const count = plural(listed.length, "track");
    const hint = "Draw around tracks with the lasso, or hold Shift and drag.";
    this.list.show(listed, {
      title: lasso.length || !found.length ? "Selected tracks" : "Found by the search",
      note: lasso.length ? `${count}.` : found.length ? `${count}, ringed on the map.` : hint,
    });
    byId("map-actions").hidden = !listed.length;
    byId("map-clear").hidden = !lasso.length;
    const corners = JSON.stringify(lasso);
    if (lasso.length && corners !== this.announced) announce(`${count} selected`);
    this.announced = corners;
  }

  /** @param {Point} point */
  #play(point) {
    if (this.player.track?.id === point.id) {
      this.player.toggle();
      return;
    }
    const { points } = this.list;
    const list = points.includes(point) ? points : [point];
    this.player.play(this.#playable(point), list.map((other) => this.#playable(other)));
    announce(`Playing ${titleOf(point)}`);
  }

  /**
   * A point as the player sees it; a hit of the search also says from where.
   * @param {Point} point
   * @returns {import("./types.js").Playable}
   */
  #playable(point) {
    const hit = this.hits.find(({ id }) => id === point.id);
    return {
      id: point.id,
      title: titleOf(point),
      by: point.artist || "",
      start: hit?.start_seconds ?? 0,
      end: hit?.end_seconds ?? null,
      duration: hit?.duration_seconds ?? null,
    };
  }

  #showPlayer() {
    const { track } = this.player;
    this.canvas.playing = track ? (this.placeOf.get(track.id) ?? -1) : -1;
    this.canvas.redraw();
  }

  /**
   * @param {number} at
   * @param {number} across
   * @param {number} down
   */
  #tip(at, across, down) {
    const tip = byId("map-tip");
    const point = at >= 0 ? this.points?.[at] : undefined;
    tip.hidden = !point;
    if (!point) return;
    tip.replaceChildren(
      el("strong", { text: titleOf(point) }),
      ...(point.artist ? [el("span", { text: point.artist })] : []),
      el("span", { class: "faint", text: point.tags.slice(0, 6).join(", ") }),
    );
    // On the side where there is room.
    const aside = across > this.canvas.size.width / 2 ? "calc(-100% - 14px)" : "14px";
    tip.style.transform = `translate(${Math.round(across)}px, ${Math.round(down)}px) translate(${aside}, -50%)`;
    if (this.canvas.byKeys) announce(`In the middle: ${titleOf(point)}${point.artist ? ` by ${point.artist}` : ""}`);
  }
}
