/** Filters by what the catalogue knows about its tracks: choices with their numbers of tracks, and ranges. */

import { byId, debounced, el } from "./dom.js";
import { fieldName } from "./format.js";

/** @typedef {import("./types.js").Facet} Facet */

const SHOWN_AT_FIRST = 8;
const TYPING_PAUSE = 500; // milliseconds: a year has four digits, and the first one is no filter

/** A value as a condition holds it: in quotes where it would be read as more than it is. @param {string} value */
const written = (value) => (/[|"]|\.\.|^\s|\s$/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

/**
 * The values that a condition lists.
 * @param {string} text
 */
function valuesOf(text) {
  const found = [];
  const pattern = /\s*("(?:[^"]|"")*"(?=\s*(?:\||$))|[^|]*)[^|]*(\||$)/y;
  for (let match = pattern.exec(text); match; match = match[2] ? pattern.exec(text) : null) {
    const part = match[1].trim();
    const quoted = /^"(?:[^"]|"")*"$/.test(part);
    found.push(quoted ? part.slice(1, -1).replaceAll('""', '"') : part);
  }
  return found;
}

/**
 * What a list of conditions says of one field.
 * @param {string[]} where
 * @param {string} name
 */
export function choiceOf(where, name) {
  const choice = { values: /** @type {string[]} */ ([]), min: "", max: "" };
  for (const condition of where) {
    if (condition.startsWith(`${name}=`)) choice.values.push(...valuesOf(condition.slice(name.length + 1)));
    else if (condition.startsWith(`${name}>=`)) choice.min = condition.slice(name.length + 2);
    else if (condition.startsWith(`${name}<=`)) choice.max = condition.slice(name.length + 2);
  }
  return choice;
}

/**
 * The conditions with those on one field replaced.
 * @param {string[]} where
 * @param {string} name
 * @param {{values?: string[], min?: string, max?: string}} choice
 */
export function withChoice(where, name, { values = [], min = "", max = "" }) {
  const others = where.filter(
    (condition) => !["=", ">=", "<="].some((comparison) => condition.startsWith(`${name}${comparison}`)),
  );
  if (values.length) others.push(`${name}=${values.map(written).join("|")}`);
  if (min !== "") others.push(`${name}>=${min}`);
  if (max !== "") others.push(`${name}<=${max}`);
  return others;
}

/**
 * The fields that divide the catalogue, what most people look for first: tags, then numbers, then names.
 * @param {Facet[]} facets
 */
function useful(facets) {
  const divides = (/** @type {Facet} */ { kind, values = [], min = 0, max = 0 }) =>
    // Where every track has a value of its own, such as a checksum, there is nothing to choose from.
    kind === "number" ? min < max : values.length > 1 && values.some(({ count }) => count > 1);
  const order = ["tags", "number", "text"];
  const sorted = facets.filter(divides).sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
  const words = (/** @type {Facet} */ { values = [] }) => values.map(({ value }) => value.toLowerCase());
  // All tags together say nothing that their kinds do not say better.
  const kinds = new Set(sorted.filter(({ name, kind }) => kind === "tags" && name !== "tags").flatMap(words));
  const said = (/** @type {Facet} */ facet) => facet.name === "tags" && words(facet).every((word) => kinds.has(word));
  // A field may be there in two spellings, such as duration and duration_seconds.
  const first = (/** @type {Facet} */ facet) => sorted.find(({ name }) => fieldName(name) === fieldName(facet.name));
  return sorted.filter((facet) => first(facet) === facet && !said(facet));
}

export class Filters {
  /** @param {{onChange: (changes: Partial<import("./state.js").State>) => void}} listeners */
  constructor(listeners) {
    this.listeners = listeners;
    this.box = /** @type {HTMLDetailsElement} */ (byId("filters"));
    this.fields = byId("filters-fields");
    /** @type {Facet[]} */
    this.facets = [];
    /** @type {import("./state.js").State | null} */
    this.state = null;
    /** Names of fields that are listed in full. @type {Set<string>} */
    this.full = new Set();
    // On a phone the filters would push the tracks out of sight.
    const wide = matchMedia("(min-width: 60rem)");
    const fit = () => {
      this.box.open = wide.matches;
    };
    wide.addEventListener("change", fit);
    fit();
    this.setFacets([]);
  }

  /** @param {Facet[]} facets */
  setFacets(facets) {
    this.facets = useful(facets);
    this.fields.replaceChildren(...this.facets.map((facet) => this.#field(facet)), this.#refinements());
    if (this.state) this.show(this.state);
  }

  /** @param {import("./state.js").State} state */
  show(state) {
    this.state = state;
    const count = state.where.length + Number(state.varied) + Number(state.oneEach);
    byId("filters-count").textContent = count ? ` · ${count} in use` : "";
    for (const input of this.fields.querySelectorAll("input")) {
      const { field, value, bound } = input.dataset;
      if (input.id === "varied") input.checked = state.varied;
      else if (input.id === "one-each") input.checked = state.oneEach;
      else if (field !== undefined) {
        const choice = choiceOf(state.where, field);
        if (value !== undefined) input.checked = choice.values.includes(value);
        // What somebody is typing is left alone.
        else if (document.activeElement !== input) input.value = bound === "min" ? choice.min : choice.max;
      }
    }
    byId("filters-clear").hidden = !count;
  }

  /** @param {Facet} facet */
  #field(facet) {
    const legend = el("legend", { text: fieldName(facet.name) });
    return el("fieldset", {}, legend, ...(facet.kind === "number" ? this.#range(facet) : this.#choices(facet)));
  }

  /** @param {Facet} facet */
  #choices(facet) {
    const list = el("ul", { class: "choices" });
    const values = facet.values || [];
    const fill = () => {
      const chosen = this.state ? choiceOf(this.state.where, facet.name).values : [];
      const all = this.full.has(facet.name);
      const listed = values.filter(({ value }, place) => all || place < SHOWN_AT_FIRST || chosen.includes(value));
      list.replaceChildren(
        ...listed.map(({ value, count }) => {
          const input = el("input", { type: "checkbox", "data-field": facet.name, "data-value": value });
          input.checked = chosen.includes(value);
          input.addEventListener("change", () => this.#choose(facet.name, value, input.checked));
          return el(
            "li",
            {},
            el("label", {}, input, el("span", { text: value }), el("span", { class: "count", text: count.toLocaleString("en") })),
          );
        }),
      );
    };
    fill();
    if (values.length <= SHOWN_AT_FIRST) return [list];
    const more = el("button", { type: "button", class: "quiet", text: `All ${values.length}`, "aria-expanded": "false" });
    more.addEventListener("click", () => {
      const open = !this.full.delete(facet.name);
      if (open) this.full.add(facet.name);
      more.textContent = open ? "Fewer" : `All ${values.length}`;
      more.setAttribute("aria-expanded", String(open));
      fill();
    });
    return [list, more];
  }

  /** @param {Facet} facet */
  #range(facet) {
    const seconds = /seconds|duration/.test(facet.name) ? " in seconds" : "";
    const [low, high] = [Math.floor(facet.min ?? 0), Math.ceil(facet.max ?? 0)];
    const bounds = /** @type {const} */ (["min", "max"]).map((bound) => {
      const input = el("input", {
        type: "number",
        inputmode: "decimal",
        step: "any",
        placeholder: bound === "min" ? low : high,
        "data-field": facet.name,
        "data-bound": bound,
        "aria-label": `${fieldName(facet.name)}${seconds}, ${bound === "min" ? "from" : "to"}`,
      });
      const later = debounced(TYPING_PAUSE, () => this.#bound(facet.name, bound, input.value));
      input.addEventListener("input", later.soon);
      input.addEventListener("change", later.now);
      return input;
    });
    return [el("div", { class: "range" }, bounds[0], el("span", { text: "to" }), bounds[1], el("span", { class: "faint", text: seconds ? "s" : "" }))];
  }

  #refinements() {
    const varied = el("input", { type: "checkbox", id: "varied" });
    const oneEach = el("input", { type: "checkbox", id: "one-each" });
    varied.addEventListener("change", () => this.listeners.onChange({ varied: varied.checked }));
    oneEach.addEventListener("change", () => this.listeners.onChange({ oneEach: oneEach.checked }));
    const clear = el("button", { type: "button", class: "quiet", id: "filters-clear", text: "Clear all filters" });
    clear.addEventListener("click", () => {
      this.listeners.onChange({ where: [], varied: false, oneEach: false });
      this.box.querySelector("summary")?.focus();
    });
    return el(
      "fieldset",
      {},
      el("legend", { text: "the list" }),
      el("ul", { class: "choices" },
        el("li", {}, el("label", {}, varied, el("span", { text: "varied" }))),
        el("li", {}, el("label", {}, oneEach, el("span", { text: "one track per artist" }))),
      ),
      clear,
    );
  }

  /**
   * @param {string} name
   * @param {string} value
   * @param {boolean} on
   */
  #choose(name, value, on) {
    if (!this.state) return;
    const { values } = choiceOf(this.state.where, name);
    const next = on ? [...values, value] : values.filter((other) => other !== value);
    this.listeners.onChange({ where: withChoice(this.state.where, name, { values: next }) });
  }

  /**
   * @param {string} name
   * @param {"min" | "max"} bound
   * @param {string} value
   */
  #bound(name, bound, value) {
    if (!this.state) return;
    const choice = choiceOf(this.state.where, name);
    if (choice[bound] === value) return;
    const next = withChoice(this.state.where, name, { ...choice, [bound]: value });
    this.listeners.onChange({ where: next });
  }
}
