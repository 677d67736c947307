/** The map of the catalogue: which tracks lie where, what the colours mean, and the list of what is selected. */

import { byId, el } from "./dom.js";
import { titleOf, plural } from "./format.js";
import { MapCanvas } from "./map-canvas.js";
import { inside, thinned } from "./map-geometry.js";
import { announce, failure } from "./notices.js";
import { MOST_GROUPS, groupColours } from "./palette.js";
import { showPlay } from "./player-bar.js";

/** @typedef {import("./api.js").Point} Point @typedef {import("./api.js").Hit} Hit @typedef {import("./state.js").State} State */
/** @typedef {{name: string, colour: string, count: number}} Group */

const LIST_PAGE = 30;
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
    this.onChange = onChange;
    this.isDark = isDark;
    /** @type {Point[] | null} */
    this.points = null;
    /** @type {Hit[]} */
    this.hits = [];
    /** @type {Point[]} what the list shows */
    this.listed = [];
    this.length = LIST_PAGE;
    /** @type {Set<string>} groups that are looked at alone */
    this.focus = new Set();
    this.canvas = new MapCanvas(/** @type {HTMLCanvasElement} */ (byId("map-canvas")), {
      onMove: (camera) => this.onChange({ camera }, "silent"),
      onHover: (point, across, down) => this.#tip(point, across, down),
      onChoose: (point) => this.points && this.#play(this.points[point]),
      onLasso: (corners) => this.onChange({ lasso: thinned(corners, CORNERS) }),
      onSelectAll: () => this.onChange({ lasso: this.canvas.viewCorners() }),
    });
    const colour = /** @type {HTMLSelectElement} */ (byId("map-colour"));
    colour.addEventListener("change", () => {
      this.focus.clear();
      this.onChange({ colour: colour.value });
    });
    const lasso = byId("map-lasso");
    lasso.addEventListener("click", () => {
      this.canvas.lassoing = !this.canvas.lassoing;
      lasso.setAttribute("aria-pressed", String(this.canvas.lassoing));
      byId("map").classList.toggle("lassoing", this.canvas.lassoing);
    });
    byId("map-in").addEventListener("click", () => this.canvas.zoom(1.5));
    byId("map-out").addEventListener("click", () => this.canvas.zoom(1 / 1.5));
    byId("map-fit").addEventListener("click", () => this.canvas.whole());
    byId("map-all").addEventListener("click", () => this.onChange({ lasso: this.canvas.viewCorners() }));
    byId("map-clear").addEventListener("click", () => {
      this.onChange({ lasso: [] });
      byId("map-list-title").focus();
    });
    byId("map-like").addEventListener("click", () => onLike(this.listed));
    byId("map-more").addEventListener("click", () => {
      const first = this.length;
      this.length += LIST_PAGE;
      this.#drawList();
      /** @type {HTMLElement | null} */ (byId("map-list").children[first]?.querySelector("button"))?.focus();
    });
    player.addEventListener("change", () => this.#showPlayer());
  }

  /** What the list holds, for an export. */
  get selected() {
    const facts = new Map(this.hits.map((hit) => [hit.id, hit]));
    return this.listed.map((point) => ({ ...point, ...facts.get(point.id) }));
  }

  /** Another catalogue has taken the place of the one before. */
  reset() {
    this.points = null;
  }

  /** @param {State} state */
  async open(state) {
    this.state = state;
    const place = byId("map-notice");
    if (!this.points) {
      byId("map-note").textContent = "Drawing the map …";
      try {
        const [{ method, points }, tags] = await Promise.all([this.api.get("v1/map"), this.tags.load().catch(() => [])]);
        this.method = method;
        this.#setPoints(points, tags);
        place.replaceChildren();
      } catch (error) {
        byId("map-note").textContent = "";
        place.replaceChildren(failure(/** @type {Error} */ (error), "The map did not come", () => this.open(state)));
        return;
      }
    }
    this.show(this.state);
  }

  /** @param {State} state */
  show(state) {
    this.state = state;
    if (!this.points) return;
    const moved = JSON.stringify(state.camera) !== JSON.stringify(this.shownCamera);
    if (moved || !this.looked) this.canvas.look(state.camera);
    this.looked = true;
    this.shownCamera = state.camera;
    this.canvas.lasso = state.lasso;
    this.#colour(state.colour);
    this.#select();
  }

  /** @param {Hit[]} hits */
  setHits(hits) {
    this.hits = hits;
    if (this.points) this.#select();
  }

  /** For when colours have changed. */
  repaint() {
    if (this.points && this.state) this.#colour(this.state.colour);
  }

  /**
   * @param {Point[]} points
   * @param {import("./tags.js").Tag[]} tags
   */
  #setPoints(points, tags) {
    this.points = points;
    const places = new Float32Array(2 * points.length);
    points.forEach(({ x, y }, at) => places.set([x, y], 2 * at));
    this.canvas.setPoints(places);
    /** @type {Map<string, number>} */
    this.placeOf = new Map(points.map(({ id }, at) => [id, at]));
    byId("map").hidden = !points.length;
    byId("map-note").textContent = points.length
      ? `${plural(points.length, "track")}, ${this.method}. Drag to move, wheel to zoom, click to play.`
      : "There are too few tracks for a map.";

    /** @type {Map<string, Set<string>>} */
    this.kinds = new Map();
    for (const { name, kind } of tags) {
      const mine = this.kinds.get(kind || "tags") || new Set();
      this.kinds.set(kind || "tags", mine.add(name));
    }
    const select = byId("map-colour");
    select.replaceChildren(
      ...[...this.kinds.keys()].map((kind) => el("option", { value: `kind:${kind}`, text: kind })),
      el("option", { value: "none", text: "nothing" }),
    );
    const common = this.#counts(new Set(tags.map(({ name }) => name))).slice(0, 100);
    if (common.length) {
      const group = el("optgroup", { label: "one tag" });
      group.append(...common.map(([name]) => el("option", { value: `tag:${name}`, text: name })));
      select.append(group);
    }
  }

  /** Names with the number of points that have them, most first. @param {Set<string>} names */
  #counts(names) {
    /** @type {Map<string, number>} */
    const counts = new Map();
    for (const { tags } of this.points || []) {
      for (const tag of tags) if (names.has(tag)) counts.set(tag, (counts.get(tag) || 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  }

  /** @param {string} wanted */
  #colour(wanted) {
    const points = this.points || [];
    const select = /** @type {HTMLSelectElement} */ (byId("map-colour"));
    select.value = wanted || this.#usual();
    if (select.selectedIndex < 0) select.value = this.#usual();
    const [means, ...rest] = select.value.split(":");
    const name = rest.join(":");
    const names = means === "kind" ? (this.kinds?.get(name) ?? new Set()) : new Set(means === "tag" ? [name] : []);
    const palette = groupColours(this.isDark());
    /** @type {Group[]} */
    const groups = this.#counts(names)
      .slice(0, MOST_GROUPS)
      .map(([group, count], at) => ({ name: group, count, colour: palette[at] }));
    const colourOf = new Map(groups.map(({ name: group, colour }) => [group, colour]));
    this.canvas.colours = points.map(({ tags }) => {
      // Of a track with several, one that is looked at alone goes first.
      const mine = tags.filter((tag) => colourOf.has(tag));
      return colourOf.get(mine.find((tag) => this.focus.has(tag)) ?? mine[0]) ?? "";
    });
    points.forEach(({ tags }, at) => {
      const off = this.focus.size && !tags.some((tag) => this.focus.has(tag));
      this.canvas.faint[at] = Number(off || (groups.length > 0 && !this.canvas.colours[at]));
    });
    this.#legend(groups, points.filter((_, at) => !this.canvas.colours[at]).length);
    this.canvas.redraw();
  }

  /** What is coloured when nobody has chosen: the kind that groups most people's music. */
  #usual() {
    const kinds = [...(this.kinds?.keys() ?? [])];
    const known = ["genre", "style", "mood", "instrument"].find((kind) => kinds.includes(kind));
    return kinds.length ? `kind:${known ?? kinds[0]}` : "none";
  }

  /**
   * @param {Group[]} groups
   * @param {number} others
   */
  #legend(groups, others) {
    const focused = document.activeElement?.closest("#map-legend li");
    const at = focused ? [...byId("map-legend").children].indexOf(focused) : -1;
    const items = groups.map(({ name, colour, count }) => {
      const button = el(
        "button",
        { type: "button", "aria-pressed": String(this.focus.has(name)), title: `Show only ${name}` },
        el("span", { class: "dot" }),
        el("span", { text: name }),
        el("span", { class: "count", text: count.toLocaleString("en") }),
      );
      /** @type {HTMLElement} */ (button.firstElementChild).style.background = colour;
      button.addEventListener("click", () => {
        if (!this.focus.delete(name)) this.focus.add(name);
        this.repaint();
      });
      return el("li", {}, button);
    });
    if (groups.length && others) {
      items.push(el("li", { class: "others faint" }, el("span", { class: "dot" }), el("span", { text: "others" }), el("span", { class: "count", text: others.toLocaleString("en") })));
    }
    byId("map-legend").replaceChildren(...items);
    if (at >= 0) items[at]?.querySelector("button")?.focus();
  }

  /** Fills the list: the lasso's tracks, or without one the hits of the search. */
  #select() {
    const points = this.points || [];
    const lasso = this.state?.lasso ?? [];
    const order = new Map(this.hits.map(({ id }, at) => [id, at]));
    this.listed = lasso.length
      ? points.filter(({ x, y }) => inside(lasso, x, y))
      : this.hits.map(({ id }) => points[this.placeOf?.get(id) ?? -1]).filter(Boolean);
    // What was searched for comes first in a selection too.
    this.listed.sort((a, b) => (order.get(a.id) ?? Infinity) - (order.get(b.id) ?? Infinity) || 0);
    const places = this.listed.map(({ id }) => this.placeOf?.get(id) ?? -1);
    this.canvas.chosen = new Set(lasso.length ? places : []);
    this.canvas.ringed = new Set(this.hits.map(({ id }) => this.placeOf?.get(id) ?? -1).filter((at) => at >= 0));
    this.canvas.redraw();
    this.length = LIST_PAGE;
    const title = lasso.length ? "Selected tracks" : this.hits.length ? "Found by the search" : "Selected tracks";
    byId("map-list-title").textContent = title;
    byId("map-list-note").textContent = lasso.length
      ? `${plural(this.listed.length, "track")}.`
      : this.hits.length
        ? `${plural(this.listed.length, "track")}, ringed on the map.`
        : "Draw around tracks with the lasso, or hold Shift and drag. Keys: S selects all in view.";
    byId("map-actions").hidden = !this.listed.length;
    byId("map-clear").hidden = !lasso.length;
    const key = JSON.stringify(lasso);
    if (lasso.length && key !== this.announced) announce(`${plural(this.listed.length, "track")} selected`);
    this.announced = key;
    this.#drawList();
  }

  #drawList() {
    byId("map-list").replaceChildren(
      ...this.listed.slice(0, this.length).map((point) => {
        const play = el("button", { type: "button", class: "play small", on: { click: () => this.#play(point) } });
        const item = el(
          "li",
          { class: "pick", "data-id": point.id },
          play,
          el("span", { class: "pick-name" }, el("span", { text: titleOf(point) }), el("span", { class: "faint", text: point.artist || point.tags.slice(0, 3).join(", ") })),
        );
        return item;
      }),
    );
    byId("map-more").hidden = this.listed.length <= this.length;
    this.#showPlayer();
  }

  /** @param {Point} point */
  #play(point) {
    if (this.player.track?.id === point.id) {
      this.player.toggle();
      return;
    }
    const list = this.listed.some(({ id }) => id === point.id) ? this.listed : [point];
    const playables = list.map((other) => this.#playable(other));
    this.player.play(this.#playable(point), playables);
    announce(`Playing ${titleOf(point)}`);
  }

  /** A point as the player sees it; a hit of the search also says from where. @param {Point} point */
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
    const { track, playing } = this.player;
    this.canvas.playing = track ? (this.placeOf?.get(track.id) ?? -1) : -1;
    this.canvas.redraw();
    for (const item of byId("map-list").children) {
      const mine = /** @type {HTMLElement} */ (item).dataset.id === track?.id;
      item.classList.toggle("current", mine);
      const button = /** @type {HTMLElement} */ (item.querySelector("button"));
      showPlay(button, mine && playing, item.querySelector(".pick-name span")?.textContent || "");
    }
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
    const { width } = this.canvas.size;
    // On the side where there is room.
    const left = across > width / 2;
    tip.style.transform = `translate(${Math.round(across)}px, ${Math.round(down)}px) translate(${left ? "calc(-100% - 14px)" : "14px"}, -50%)`;
    if (document.activeElement === this.canvas.canvas && this.canvas.canvas.matches(":focus-visible")) announce(`In the middle: ${titleOf(point)}${point.artist ? ` by ${point.artist}` : ""}`);
  }
}
