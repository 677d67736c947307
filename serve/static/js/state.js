/**
 * What the page shows, as one plain object, and the same as the part of the address behind the #.
 *
 * Everything that somebody may want to share or come back to is in here. It lies behind the # and not behind a ?,
 * so that it never reaches the server's log.
 *
 *     #q=slow+piano&text=-0.5*drums&track=1*clip-00178&sound=1*u_8f3a*hum.wav&where=genre%3Drock&view=map
 *
 * @typedef {"search" | "map" | "tags"} View
 * @typedef {"text" | "track" | "sound"} Kind
 * @typedef {{kind: Kind, value: string, weight: number, label?: string}} Term
 * @typedef {{x: number, y: number, zoom: number}} Camera
 * @typedef {object} State
 * @property {View} view
 * @property {string} text the words in the box, a term of weight 1
 * @property {Term[]} terms the chips
 * @property {string[]} where conditions as the server reads them, such as `genre=rock|jazz` or `year>=1990`
 * @property {boolean} varied prefer hits that differ from the hits before
 * @property {boolean} oneEach one hit an artist
 * @property {number} shown how many hits are listed
 * @property {Camera | null} camera where the map looks; null is all of it
 * @property {string} colour what the map's colours mean; empty is the page's choice
 * @property {number[][]} lasso corners of the selection on the map
 */

export const PAGE = 20;
export const MOST_SHOWN = 200;
export const MOST_TERMS = 12;
export const MINUS_WEIGHT = -0.5; // as on the command line: a full minus cancels what is wanted as well
const MOST_WEIGHT = 3;
const MOST_CORNERS = 64;
/** @type {View[]} */
const VIEWS = ["search", "map", "tags"];
/** @type {Kind[]} */
const KINDS = ["text", "track", "sound"];

/** @returns {State} */
export function blank() {
  return {
    view: "search",
    text: "",
    terms: [],
    where: [],
    varied: false,
    oneEach: false,
    shown: PAGE,
    camera: null,
    colour: "",
    lasso: [],
  };
}

/**
 * A weight that may be used: not 0, not beyond what the slider reaches, in tenths.
 * @param {number} weight
 */
export function fairWeight(weight) {
  const bounded = Math.max(-MOST_WEIGHT, Math.min(MOST_WEIGHT, Math.round(weight * 10) / 10));
  return bounded || (weight < 0 ? -0.1 : 0.1);
}

/**
 * Reads an address; what is not understood is left out, so that an old or a broken link still shows a page.
 * @param {string} hash with or without the #
 * @returns {State}
 */
export function parse(hash) {
  const state = blank();
  for (const [key, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (key === "q") state.text = value.slice(0, 1000);
    else if (key === "where" && value) state.where.push(value);
    else if (key === "varied") state.varied = value === "1";
    else if (key === "one-each") state.oneEach = value === "1";
    else if (key === "shown") state.shown = Math.max(PAGE, Math.min(MOST_SHOWN, Number.parseInt(value, 10) || PAGE));
    else if (key === "colour") state.colour = value;
    else if (key === "at") state.camera = camera(value);
    else if (key === "lasso") state.lasso = corners(value);
    else if (key === "view" && VIEWS.includes(/** @type {View} */ (value))) state.view = /** @type {View} */ (value);
    else if (KINDS.includes(/** @type {Kind} */ (key)) && state.terms.length < MOST_TERMS) {
      const read = term(/** @type {Kind} */ (key), value);
      if (read) state.terms.push(read);
    }
  }
  return state;
}

/**
 * Writes an address; what is as on a blank page is left out.
 * @param {State} state
 * @returns {string} with the #, or empty
 */
export function write(state) {
  const said = new URLSearchParams();
  if (state.text) said.append("q", state.text);
  for (const { kind, value, weight, label } of state.terms) {
    said.append(kind, `${weight}*${value}${kind === "sound" && label ? `*${label}` : ""}`);
  }
  for (const condition of state.where) said.append("where", condition);
  if (state.varied) said.append("varied", "1");
  if (state.oneEach) said.append("one-each", "1");
  if (state.shown !== PAGE) said.append("shown", String(state.shown));
  if (state.view !== "search") said.append("view", state.view);
  if (state.camera) said.append("at", [state.camera.x, state.camera.y, state.camera.zoom].map(short).join(","));
  if (state.colour) said.append("colour", state.colour);
  if (state.lasso.length) said.append("lasso", state.lasso.map((corner) => corner.map(short).join(",")).join(";"));
  const text = said.toString();
  return text ? `#${text}` : "";
}

/**
 * The part of a state that the list of hits depends on, apart from its length.
 * @param {State} state
 */
export function questionOf(state) {
  const terms = state.terms.map(({ kind, value, weight }) => [kind, value, weight]);
  return JSON.stringify([state.text.trim(), terms, state.where, state.varied, state.oneEach]);
}

/** Says that something is asked. @param {State} state */
export function asks(state) {
  return Boolean(state.text.trim() || state.terms.length);
}

/** The state of the page, kept equal to the address. Fires `change` with `{before, state}`. */
export class Store extends EventTarget {
  constructor() {
    super();
    /** @type {State} */
    this.state = parse(location.hash);
    this.typing = false;
    // Back, forward, and an address that somebody has changed by hand.
    addEventListener("popstate", () => {
      this.typing = false;
      this.#become(parse(location.hash));
    });
  }

  /**
   * Changes some of the state.
   * @param {Partial<State>} changes
   * @param {"step" | "typing" | "silent"} [how] `step`: one step of the back button; `typing`: one step for all that
   *   is typed in a row; `silent`: no step
   */
  change(changes, how = "step") {
    const next = { ...this.state, ...changes };
    const address = write(next);
    const url = address || location.pathname + location.search;
    const steps = how === "step" || (how === "typing" && !this.typing);
    if (steps && address !== location.hash) history.pushState(null, "", url);
    else history.replaceState(null, "", url);
    if (how !== "silent") this.typing = how === "typing";
    this.#become(next);
  }

  /** What is typed from here on is another step of the back button. */
  endTyping() {
    this.typing = false;
  }

  /** @param {State} next */
  #become(next) {
    const before = this.state;
    this.state = next;
    this.dispatchEvent(new CustomEvent("change", { detail: { before, state: next } }));
  }
}

/** @param {number} value */
function short(value) {
  return String(Math.round(value * 1000) / 1000);
}

/**
 * @param {Kind} kind
 * @param {string} written such as `-0.5*drums`
 * @returns {Term | null}
 */
function term(kind, written) {
  const found = /^(-?\d+(?:\.\d+)?)\*(.+)$/s.exec(written);
  if (!found || !found[2].trim()) return null;
  const weight = fairWeight(Number(found[1]));
  if (kind !== "sound") return { kind, value: found[2], weight };
  const [value, ...label] = found[2].split("*");
  return { kind, value, weight, label: label.join("*") || undefined };
}

/**
 * @param {string} written
 * @returns {Camera | null}
 */
function camera(written) {
  const [x, y, zoom] = written.split(",").map(Number);
  return [x, y, zoom].every(Number.isFinite) && zoom > 0 ? { x, y, zoom } : null;
}

/** @param {string} written */
function corners(written) {
  const read = written.split(";").map((corner) => corner.split(",").map(Number));
  return read.slice(0, MOST_CORNERS).filter((corner) => corner.length === 2 && corner.every(Number.isFinite));
}
