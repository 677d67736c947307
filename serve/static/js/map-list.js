/** The tracks beside the map, for eyes and ears that the picture is no use to: the lasso's, or the search's. */

import { byId, el } from "./dom.js";
import { titleOf } from "./format.js";
import { showPlay } from "./player-bar.js";

/** @typedef {import("./types.js").Point} Point */

const PAGE = 30;

export class MapList {
  /**
   * @param {import("./player.js").Player} player
   * @param {(point: Point) => void} onPlay
   */
  constructor(player, onPlay) {
    this.player = player;
    this.onPlay = onPlay;
    this.list = byId("map-list");
    /** @type {Point[]} */
    this.points = [];
    this.length = PAGE;
    byId("map-more").addEventListener("click", () => {
      const first = this.length;
      this.length += PAGE;
      this.#draw();
      // The button may be gone, and the first of the new ones is what was asked for.
      this.list.children[first]?.querySelector("button")?.focus();
    });
    player.addEventListener("change", () => this.#showPlayer());
  }

  /**
   * @param {Point[]} points
   * @param {{title: string, note: string}} said
   */
  show(points, { title, note }) {
    this.points = points;
    this.length = PAGE;
    byId("map-list-title").textContent = title;
    byId("map-list-note").textContent = note;
    this.#draw();
  }

  #draw() {
    this.list.replaceChildren(...this.points.slice(0, this.length).map((point) => this.#item(point)));
    byId("map-more").hidden = this.points.length <= this.length;
    this.#showPlayer();
  }

  /** @param {Point} point */
  #item(point) {
    const play = el("button", { type: "button", class: "play small", on: { click: () => this.onPlay(point) } });
    const by = point.artist || point.tags.slice(0, 3).join(", ");
    const name = el("span", { class: "pick-name" }, el("span", { text: titleOf(point) }), el("span", { class: "faint", text: by }));
    return el("li", { class: "pick" }, play, name);
  }

  #showPlayer() {
    const { track, playing } = this.player;
    [...this.list.children].forEach((item, at) => {
      const point = this.points[at];
      const mine = point.id === track?.id;
      item.classList.toggle("current", mine);
      showPlay(/** @type {HTMLElement} */ (item.firstElementChild), mine && playing, titleOf(point));
    });
  }
}
