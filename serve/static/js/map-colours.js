/** What the map's colours mean: a kind of tag or one tag, with a legend whose entries can be looked at alone. */

import { byId, el } from "./dom.js";
import { MOST_GROUPS, groupColours } from "./palette.js";

/** @typedef {import("./types.js").Point} Point @typedef {{name: string, colour: string, count: number}} Group */

const USUAL = ["genre", "style", "mood", "instrument"]; // what groups most people's music, if nobody has chosen
const SINGLE_TAGS = 100; // of those that most tracks have

export class MapColours {
  /** @param {{onChoose: (colour: string) => void, onFocus: () => void, isDark: () => boolean}} listeners */
  constructor({ onChoose, onFocus, isDark }) {
    this.onFocus = onFocus;
    this.isDark = isDark;
    this.select = /** @type {HTMLSelectElement} */ (byId("map-colour"));
    this.legend = byId("map-legend");
    /** @type {Point[]} */
    this.points = [];
    /** Names of tags by kind. @type {Map<string, Set<string>>} */
    this.kinds = new Map();
    /** Groups that are looked at alone. @type {Set<string>} */
    this.alone = new Set();
    this.select.addEventListener("change", () => {
      this.alone.clear();
      onChoose(this.select.value);
    });
  }

  /**
   * @param {Point[]} points
   * @param {import("./types.js").Tag[]} tags
   */
  setPoints(points, tags) {
    this.points = points;
    this.kinds.clear();
    for (const { name, kind } of tags) {
      this.kinds.set(kind || "tags", (this.kinds.get(kind || "tags") ?? new Set()).add(name));
    }
    const common = this.#counts(new Set(tags.map(({ name }) => name))).slice(0, SINGLE_TAGS);
    const single = el("optgroup", { label: "one tag" });
    single.append(...common.map(([name]) => el("option", { value: `tag:${name}`, text: name })));
    this.select.replaceChildren(
      ...[...this.kinds.keys()].map((kind) => el("option", { value: `kind:${kind}`, text: kind })),
      el("option", { value: "none", text: "nothing" }),
      ...(common.length ? [single] : []),
    );
  }

  /**
   * Colours by point, empty for what belongs to no group, and which points stand back.
   * @param {string} wanted an option's value; empty or unknown is the usual
   * @returns {{colours: string[], faint: Uint8Array}}
   */
  paint(wanted) {
    this.select.value = wanted || this.#usual();
    if (this.select.selectedIndex < 0) this.select.value = this.#usual();
    const groups = this.#groups();
    const colourOf = new Map(groups.map(({ name, colour }) => [name, colour]));
    const faint = new Uint8Array(this.points.length);
    const colours = this.points.map(({ tags }, at) => {
      // Of a track with several, one that is looked at alone goes first.
      const mine = tags.filter((tag) => colourOf.has(tag));
      const shown = mine.find((tag) => this.alone.has(tag)) ?? mine[0];
      const aside = this.alone.size > 0 && !tags.some((tag) => this.alone.has(tag));
      faint[at] = Number(aside || (groups.length > 0 && shown === undefined));
      return colourOf.get(shown) ?? "";
    });
    this.#drawLegend(groups, colours.filter((colour) => !colour).length);
    return { colours, faint };
  }

  /** @returns {Group[]} */
  #groups() {
    const [means, ...rest] = this.select.value.split(":");
    const name = rest.join(":");
    const names = means === "kind" ? (this.kinds.get(name) ?? new Set()) : new Set(means === "tag" ? [name] : []);
    const palette = groupColours(this.isDark());
    return this.#counts(names)
      .slice(0, MOST_GROUPS)
      .map(([group, count], at) => ({ name: group, count, colour: palette[at] }));
  }

  /**
   * Names with the number of points that have them, most first.
   * @param {Set<string>} names
   */
  #counts(names) {
    /** @type {Map<string, number>} */
    const counts = new Map();
    for (const { tags } of this.points) {
      for (const tag of tags) if (names.has(tag)) counts.set(tag, (counts.get(tag) || 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  }

  #usual() {
    const kinds = [...this.kinds.keys()];
    return kinds.length ? `kind:${USUAL.find((kind) => kinds.includes(kind)) ?? kinds[0]}` : "none";
  }

  /**
   * @param {Group[]} groups
   * @param {number} others
   */
  #drawLegend(groups, others) {
    const focused = document.activeElement?.closest("#map-legend li");
    const at = focused ? [...this.legend.children].indexOf(focused) : -1;
    const entry = (/** @type {string} */ name, /** @type {number} */ count) => [
      el("span", { class: "dot" }),
      el("span", { text: name }),
      el("span", { class: "count", text: count.toLocaleString("en") }),
    ];
    const items = groups.map(({ name, colour, count }) => {
      const pressed = String(this.alone.has(name));
      const button = el("button", { type: "button", "aria-pressed": pressed, title: `Show only ${name}` }, ...entry(name, count));
      /** @type {HTMLElement} */ (button.firstElementChild).style.background = colour;
      button.addEventListener("click", () => {
        if (!this.alone.delete(name)) this.alone.add(name);
        this.onFocus();
      });
      return el("li", {}, button);
    });
    if (groups.length && others) items.push(el("li", { class: "others faint" }, ...entry("others", others)));
    this.legend.replaceChildren(...items);
    if (at >= 0) items[at]?.querySelector("button")?.focus();
  }
}
