/** From what is in the box and the chips to what the server is asked. */

import { MINUS_WEIGHT, fairWeight } from "./state.js";

/** @typedef {import("./state.js").Term} Term @typedef {import("./state.js").State} State */

const PARTS = /((?:"[^"]*"|[^"])*?)(?:(?<=\s)([+−-])(?=\s)|$)/sy;

/**
 * Reads one line by the rule of the command line (docs/howto-search.md): terms stand between + and − with blanks
 * around them; a term is words, with or without quotes, or `id:` and a track; `2 *` before it is its weight.
 *
 * While somebody types, a line is often half a term: what is not finished is left out or taken as words.
 * @param {string} line
 * @returns {Term[]}
 */
export function parseLine(line) {
  if ((line.match(/"/g) || []).length % 2) return words(line.replaceAll('"', " "), 1);
  /** @type {Term[]} */
  const terms = [];
  let sign = 1;
  PARTS.lastIndex = 0;
  for (;;) {
    const found = PARTS.exec(line);
    if (!found) break;
    const end = PARTS.lastIndex;
    terms.push(...term(found[1].trim(), sign));
    if (found[2] === undefined || end >= line.length) break;
    sign = found[2] === "+" ? 1 : -1;
    PARTS.lastIndex = end;
  }
  return terms;
}

/**
 * What `/v1/search` is asked.
 * @param {State} state
 * @param {{k: number, offset: number, moments: boolean}} page
 */
export function searchBody(state, { k, offset, moments }) {
  return {
    terms: allTerms(state).map(({ kind, value, weight }) => ({
      [kind === "sound" ? "audio" : kind]: value,
      weight,
    })),
    where: state.where,
    k,
    offset,
    moments,
    tags: 5,
    diversity: state.varied ? 0.3 : null,
    group: state.oneEach ? "artist" : null,
  };
}

/** The box's terms and the chips. @param {State} state */
export function allTerms(state) {
  return [...parseLine(state.text), ...state.terms];
}

/** A query needs something to look for; all minus is not yet one. @param {State} state */
export function isWhole(state) {
  return allTerms(state).some(({ weight }) => weight > 0);
}

/**
 * The query in words, for the title of the list.
 * @param {State} state
 */
export function describe(state) {
  const said = allTerms(state).map(({ kind, value, label, weight }, place) => {
    const what = kind === "text" ? `“${value}”` : label || value;
    return weight < 0 ? `− ${what}` : place ? `+ ${what}` : what;
  });
  return said.join(" ");
}

/**
 * @param {string} part
 * @param {number} sign
 * @returns {Term[]}
 */
function term(part, sign) {
  const weighted = /^(\d+(?:\.\d*)?|\.\d+)\s*\*\s*(.*)$/s.exec(part);
  const weight = weighted ? fairWeight(sign * Number(weighted[1])) : sign > 0 ? 1 : MINUS_WEIGHT;
  const what = (weighted ? weighted[2] : part).trim();
  const id = /^id:\s*"?(.*?)"?$/s.exec(what);
  if (id) return id[1] ? [{ kind: "track", value: id[1], weight }] : [];
  return words(/^"[^"]*"$/.test(what) ? what.slice(1, -1) : what, weight);
}

/**
 * @param {string} text
 * @param {number} weight
 * @returns {Term[]}
 */
function words(text, weight) {
  const value = text.trim();
  return value ? [{ kind: "text", value, weight }] : [];
}
