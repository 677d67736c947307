/** The parts of the search as chips: words, tracks and sounds, each with plus or minus, a weight, and a way out. */

import { byId, el } from "./dom.js";
import { fairWeight } from "./state.js";

/** @typedef {import("./state.js").Term} Term */

const NAMES = { text: "words", track: "track", sound: "sound" };

export class Chips {
  /**
   * @param {object} listeners
   * @param {(place: number, changes: Partial<Term>, sliding: boolean) => void} listeners.onChange
   * @param {(place: number) => void} listeners.onRemove
   * @param {() => void} listeners.onLeft the last chip is gone, and focus needs another place
   */
  constructor(listeners) {
    this.list = byId("chips");
    this.listeners = listeners;
    this.drawn = "";
  }

  /** @param {Term[]} terms */
  show(terms) {
    // While a weight is being dragged its slider must stay the same element.
    const shape = JSON.stringify(terms.map(({ kind, value, label, weight }) => [kind, value, label, weight > 0]));
    this.list.hidden = !terms.length;
    if (shape === this.drawn) {
      terms.forEach((term, place) => this.#weigh(place, term.weight));
      return;
    }
    const focus = this.#focused();
    this.drawn = shape;
    this.list.replaceChildren(...terms.map((term, place) => this.#chip(term, place)));
    terms.forEach((term, place) => this.#weigh(place, term.weight));
    if (focus) this.#refocus(focus, terms.length);
  }

  /**
   * @param {Term} term
   * @param {number} place
   */
  #chip(term, place) {
    const name = term.label || term.value;
    const minus = term.weight < 0;
    const sign = el("button", {
      type: "button",
      class: "sign",
      "data-part": "sign",
      text: minus ? "−" : "+",
      title: minus ? "Look for more of this instead" : "Look for less of this instead",
      "aria-label": `${name}: ${minus ? "less of it; change to more" : "more of it; change to less"}`,
      on: { click: () => this.listeners.onChange(place, { weight: fairWeight(minus ? 1 : -0.5) }, false) },
    });
    const slider = el("input", {
      type: "range",
      min: 0.1,
      max: 2,
      step: 0.1,
      "data-part": "weight",
      "aria-label": `Weight of ${name}`,
    });
    slider.addEventListener("input", () => {
      const weight = fairWeight(Number(slider.value) * (minus ? -1 : 1));
      this.listeners.onChange(place, { weight }, true);
    });
    const out = el("button", {
      type: "button",
      class: "out",
      "data-part": "out",
      text: "×",
      "aria-label": `Remove ${name}`,
      on: { click: () => this.listeners.onRemove(place) },
    });
    const kind = term.kind === "text" ? [] : [el("span", { class: "chip-kind", text: NAMES[term.kind] })];
    return el(
      "li",
      { class: `chip ${minus ? "minus" : "plus"}` },
      sign,
      ...kind,
      el("span", { class: "chip-name", text: name, title: name }),
      slider,
      el("output", { class: "chip-weight" }),
      out,
    );
  }

  /**
   * @param {number} place
   * @param {number} weight
   */
  #weigh(place, weight) {
    const chip = this.list.children[place];
    const slider = /** @type {HTMLInputElement} */ (chip.querySelector("input"));
    const size = Math.abs(weight);
    if (Number(slider.value) !== size) slider.value = String(size);
    slider.setAttribute("aria-valuetext", `${weight < 0 ? "minus" : "plus"} ${size.toFixed(1)}`);
    /** @type {HTMLElement} */ (chip.querySelector("output")).textContent = size.toFixed(1);
  }

  #focused() {
    const at = /** @type {HTMLElement | null} */ (document.activeElement);
    const chip = at?.closest(".chip");
    if (!at || !chip || chip.parentElement !== this.list) return null;
    return { place: [...this.list.children].indexOf(chip), part: at.dataset.part };
  }

  /**
   * @param {{place: number, part: string | undefined}} focus
   * @param {number} count
   */
  #refocus({ place, part }, count) {
    if (!count) {
      this.listeners.onLeft();
      return;
    }
    const chip = this.list.children[Math.min(place, count - 1)];
    /** @type {HTMLElement | null} */ (chip.querySelector(`[data-part="${part}"]`))?.focus();
  }
}
