/** Puts the page together: each part does one thing, and what passes between them passes here. */

import { Api, ApiError } from "./api.js";
import { Chips } from "./chips.js";
import { byId, el } from "./dom.js";
import { asCsv, asM3u, save } from "./export.js";
import { Filters, withChoice } from "./filters.js";
import { fieldName, plural, titleOf } from "./format.js";
import { MapView } from "./map.js";
import { announce, failure, notice, waiting } from "./notices.js";
import { Player } from "./player.js";
import { startPlayerBar } from "./player-bar.js";
import { allTerms, describe, isWhole, parseLine } from "./query.js";
import { Results } from "./results.js";
import { Searcher } from "./search.js";
import { MINUS_WEIGHT, MOST_SHOWN, MOST_TERMS, PAGE, Store, asks, blank, questionOf } from "./state.js";
import { Tags } from "./tags.js";
import { currentTheme, startTheme } from "./theme.js";
import { askToken } from "./token.js";
import { Uploads } from "./upload.js";
import { Waveforms } from "./waveform.js";

/** @typedef {import("./state.js").State} State @typedef {import("./state.js").Term} Term @typedef {import("./state.js").View} View */

const store = new Store();
const api = new Api();
api.askToken = askToken;
const waveforms = new Waveforms(api);
const player = new Player(/** @type {HTMLAudioElement} */ (byId("audio")), api);
const text = /** @type {HTMLInputElement} */ (byId("text"));
/** Names of tracks and sounds that were seen, so that a chip need not show an id. @type {Map<string, string>} */
const names = new Map();
/** @type {import("./api.js").Info | null} */
let info = null;
/** @type {import("./api.js").Facet[]} */
let facets = [];

const chips = new Chips({
  onChange: (place, changes, sliding) => {
    const terms = store.state.terms.map((term, at) => (at === place ? { ...term, ...changes } : term));
    store.change({ terms }, sliding ? "typing" : "step");
  },
  onRemove: (place) => store.change({ terms: store.state.terms.filter((_, at) => at !== place), shown: PAGE }),
  onLeft: () => text.focus(),
});
const filters = new Filters({ onChange: (changes) => store.change({ ...changes, shown: PAGE }) });
const results = new Results({
  player,
  waveforms,
  listeners: {
    onLike: (hit) => {
      names.set(hit.id, titleOf(hit));
      ask({ text: "", terms: [{ kind: "track", value: hit.id, weight: 1 }] });
    },
    onBlend: (hit) => {
      names.set(hit.id, titleOf(hit));
      addTerm({ kind: "track", value: hit.id, weight: 1 });
      byId("results-title").focus();
    },
    onLess: (hit) => {
      names.set(hit.id, titleOf(hit));
      addTerm({ kind: "track", value: hit.id, weight: MINUS_WEIGHT });
      byId("results-title").focus();
    },
    onTag: (name) => addTerm({ kind: "text", value: name, weight: 1 }),
  },
  onMore: () => {
    const { shown } = store.state;
    searcher.more(store.state, results.rows.length, Math.min(PAGE, MOST_SHOWN - shown));
  },
});
const tags = new Tags(api, {
  onSearch: (name) => ask({ view: "search", text: name, terms: [] }),
  onOnly: ({ name, kind }) => {
    const field = fieldOfTag(name, kind);
    ask({ view: "search", where: withChoice(store.state.where, field, { values: [name] }) });
  },
});
const map = new MapView({
  api,
  tags,
  player,
  isDark: () => currentTheme() === "dark",
  onChange: (changes, how) => store.change(changes, how),
  onLike: (points) => {
    // More of them would only blur what they have in common.
    const some = points.slice(0, MOST_TERMS);
    for (const point of some) names.set(point.id, titleOf(point));
    ask({ view: "search", text: "", terms: some.map(({ id }) => ({ kind: /** @type {const} */ ("track"), value: id, weight: 1 })) });
  },
});
const uploads = new Uploads(api, ({ audio, name }) => {
  names.set(audio, name);
  addTerm({ kind: "sound", value: audio, label: name, weight: 1 });
  byId("results-title").focus();
});
const searcher = new Searcher(api, {
  onBusy: () => byId("hits").setAttribute("aria-busy", "true"),
  onWait: (seconds) => byId("notice").replaceChildren(waiting(seconds)),
  onAnswer: showAnswer,
  onError: showError,
});

// --- what the parts ask for -------------------------------------------------------------------------------------

/**
 * Another question, and the eyes and ears go to its answer.
 * @param {Partial<State>} changes
 */
function ask(changes) {
  store.change({ ...changes, shown: PAGE });
  byId("results-title").focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

/** A term by the name that people know. @param {Term} term @returns {Term} */
function named(term) {
  return { ...term, label: names.get(term.value) ?? term.label };
}

/** @param {Term} term */
function addTerm(term) {
  const terms = store.state.terms.filter(({ kind, value }) => kind !== term.kind || value !== term.value);
  if (terms.length >= MOST_TERMS) {
    announce(`A search has at most ${MOST_TERMS} parts; remove one first.`);
    return;
  }
  store.change({ terms: [...terms, term], shown: PAGE });
}

/** Makes chips of what is in the box. @param {1 | -1} sign */
function keepWords(sign) {
  const found = parseLine(text.value).map((term) => (sign < 0 ? { ...term, weight: term.weight > 0 ? MINUS_WEIGHT * term.weight : term.weight } : term));
  if (found.length) store.change({ text: "", terms: [...store.state.terms, ...found].slice(0, MOST_TERMS), shown: PAGE });
  text.focus();
}

/**
 * The key under which a filter finds a tag.
 * @param {string} name
 * @param {string | null} kind
 */
function fieldOfTag(name, kind) {
  const holds = facets.filter((facet) => facet.values?.some(({ value }) => value === name));
  const best = holds.find((facet) => fieldName(facet.name) === kind) ?? holds[0];
  return best?.name ?? "tag";
}

// --- what the state shows ---------------------------------------------------------------------------------------

/**
 * @param {State} state
 * @param {State | null} before
 */
function show(state, before) {
  if (text.value !== state.text) text.value = state.text;
  chips.show(state.terms.map(named));
  filters.show(state);
  if (state.view !== before?.view) showView(state.view);
  if (state.view === "map") map.open(state);
  if (state.view === "tags") tags.open();
  const asked = before === null || questionOf(state) !== questionOf(before);
  if (asked) search(state, before !== null && store.typing);
  else if (before && state.shown < before.shown) search(state, false); // back from "More tracks"
  document.title = asks(state) ? `${describe({ ...state, terms: state.terms.map(named) })} – xmodal` : "xmodal";
  nameTracks(state);
}

/** @param {View} view */
function showView(view) {
  for (const name of /** @type {View[]} */ (["search", "map", "tags"])) {
    byId(`view-${name}`).hidden = name !== view;
    const tab = byId(`tab-${name}`);
    if (name === view) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
}

/**
 * @param {State} state
 * @param {boolean} typing
 */
function search(state, typing) {
  const nothing = !asks(state) && !state.where.length;
  byId("empty").hidden = !nothing;
  if (nothing || (asks(state) && !isWhole(state))) {
    searcher.cancel();
    results.clear();
    map.setHits([]);
    byId("hits").removeAttribute("aria-busy");
    byId("results-actions").hidden = true;
    results.title(nothing ? "Find music" : "Less of what?", "");
    byId("notice").replaceChildren(
      ...(nothing ? [] : [notice({ title: "Say also what to look for", text: "All parts of this search are minus. Add words, a track or a sound with a plus." })]),
    );
    return;
  }
  searcher.search(state, { typing });
}

/**
 * @param {import("./api.js").Answer} answer
 * @param {{state: State, added: boolean, milliseconds: number}} facts
 */
function showAnswer(answer, { state, added, milliseconds }) {
  byId("hits").removeAttribute("aria-busy");
  byId("notice").replaceChildren();
  for (const hit of answer.hits) names.set(hit.id, titleOf(hit));
  const room = answer.next_offset !== null && answer.next_offset < MOST_SHOWN;
  results.show(answer.hits, { added, more: room });
  map.setHits(results.hits);
  byId("results-actions").hidden = !results.rows.length;
  const title = !asks(state) ? "Tracks that pass the filters" : describe({ ...state, terms: state.terms.map(named) });
  const count = answer.total ?? results.rows.length;
  const time = answer.milliseconds === null ? "" : ` in ${Math.max(1, Math.round(milliseconds))} ms`;
  results.title(title, `${answer.total || !answer.next_offset ? plural(count, "track") : `the best ${results.rows.length}`}${time}`);
  if (!results.rows.length) {
    byId("notice").replaceChildren(
      notice({
        title: "Nothing found",
        text: state.where.length ? "No track passes all of the filters." : "This catalogue has no tracks.",
        actions: state.where.length ? [{ text: "Clear all filters", click: () => store.change({ where: [] }) }] : [],
      }),
    );
  }
  if (added) store.change({ shown: results.rows.length }, "silent");
  if (info && answer.space_id !== info.space_id) renew();
}

/**
 * @param {Error} error
 * @param {State} state
 */
function showError(error, state) {
  byId("hits").removeAttribute("aria-busy");
  results.clear();
  map.setHits([]);
  byId("results-actions").hidden = true;
  results.title("No tracks", "");
  const lost = lostSound(error, state);
  byId("notice").replaceChildren(
    lost
      ? notice({
          title: `${lost.label ?? "The sound"} is no longer there`,
          text: "The server keeps what was dropped for a while only. Drop the file again, or search without it.",
          kind: "alert",
          actions: [
            { text: "Search without it", click: () => store.change({ terms: state.terms.filter((term) => term !== lost) }) },
            { text: "Choose the file again", click: () => byId("file").click() },
          ],
        })
      : failure(error, "The search did not work", () => search(store.state, false)),
  );
}

/**
 * The sound that the server does not know any more, if that is what the error says.
 * @param {Error} error
 * @param {State} state
 */
function lostSound(error, state) {
  if (!(error instanceof ApiError) || ![404, 410, 422].includes(error.status)) return undefined;
  return state.terms.find(({ kind, value }) => kind === "sound" && error.message.includes(value));
}

/** Looks up the names of tracks that came by a link. @param {State} state */
async function nameTracks(state) {
  const unknown = state.terms.filter(({ kind, value }) => kind === "track" && !names.has(value));
  for (const { value } of unknown) {
    names.set(value, value); // asked once, whatever comes of it
    const track = await api.get("v1/track", { id: value }).catch(() => null);
    if (track) names.set(value, titleOf(track));
  }
  if (unknown.length) chips.show(store.state.terms.map(named));
}

// --- what is served ---------------------------------------------------------------------------------------------

async function start() {
  const place = byId("notice");
  try {
    info = /** @type {import("./api.js").Info} */ (await api.get("v1/info", {}, { onWait: (seconds) => place.replaceChildren(waiting(seconds)) }));
  } catch (error) {
    results.title("Not ready", "");
    place.replaceChildren(failure(/** @type {Error} */ (error), "The catalogue did not come", start));
    return;
  }
  place.replaceChildren();
  showInfo(info);
  text.disabled = false;
  if (!matchMedia("(pointer: coarse)").matches) text.focus(); // a phone's keyboard would cover half of the page
  store.addEventListener("change", (event) => {
    const { before, state } = /** @type {CustomEvent<{before: State, state: State}>} */ (event).detail;
    show(state, before);
  });
  show(store.state, null);
  loadFacets();
}

/** @param {import("./api.js").Info} served */
function showInfo(served) {
  searcher.moments = served.moments;
  uploads.limits = served.upload;
  results.welcome(served.example_queries, (example) => ask({ text: example }), true);
  byId("model").replaceChildren(
    el("span", { text: plural(served.tracks, "track") }),
    el("span", { text: served.model, title: `The model that listens: ${served.model}, ${served.dim} dimensions, ${served.engine} index` }),
    el("span", { text: `space ${served.space_id}`, title: "Vectors may be compared only with vectors of this space" }),
  );
}

async function loadFacets() {
  // Filters are an addition: without them the page still searches.
  facets = await api.get("v1/facets").then(({ fields }) => fields, () => []);
  filters.setFacets(facets);
}

/** Another model or index has been swapped in while the page was open. */
async function renew() {
  info = await api.get("v1/info").catch(() => info);
  if (info) showInfo(info);
  tags.reset();
  map.reset();
  loadFacets();
  announce("The catalogue has been replaced by a newer one.");
}

// --- hands and keys ---------------------------------------------------------------------------------------------

text.addEventListener("input", () => store.change({ text: text.value, shown: PAGE }, "typing"));
text.addEventListener("change", () => store.endTyping());
byId("chips").addEventListener("change", () => store.endTyping());
byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  store.endTyping();
  if (allTerms(store.state).length > store.state.terms.length + 1) keepWords(1);
  else if (asks(store.state)) searcher.search(store.state);
});
text.addEventListener("keydown", (event) => {
  // From the box straight to the tracks, as in a menu.
  if (event.key !== "ArrowDown" || !results.rows.length || store.state.view !== "search") return;
  event.preventDefault();
  results.rows[0].stops[0].focus();
});
byId("keep-plus").addEventListener("click", () => keepWords(1));
byId("keep-minus").addEventListener("click", () => keepWords(-1));
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // what stands behind the # is the search
  byId("content").focus();
});
byId("home").addEventListener("click", (event) => {
  event.preventDefault();
  store.change(blank());
  text.focus();
});
for (const view of /** @type {View[]} */ (["search", "map", "tags"])) {
  byId(`tab-${view}`).addEventListener("click", (event) => {
    event.preventDefault();
    store.change({ view });
  });
}
byId("share").addEventListener("click", () => copyLink());

async function copyLink() {
  const button = byId("share");
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
    announce("The link has been copied.");
  } catch {
    // Without https browsers keep the clipboard to themselves.
    button.textContent = "Copy it from the address bar";
  }
  setTimeout(() => (button.textContent = "Copy link"), 2500);
}

const urlOf = (/** @type {string} */ id) => api.audioUrl(id);
byId("export-m3u").addEventListener("click", () => save("tracks.m3u8", "audio/x-mpegurl", asM3u(results.hits, urlOf)));
byId("export-csv").addEventListener("click", () => save("tracks.csv", "text/csv", asCsv(results.hits, urlOf)));
byId("map-m3u").addEventListener("click", () => save("selection.m3u8", "audio/x-mpegurl", asM3u(map.selected, urlOf)));
byId("map-csv").addEventListener("click", () => save("selection.csv", "text/csv", asCsv(map.selected, urlOf)));

const repaintBar = startPlayerBar(player, waveforms);
startTheme(() => {
  results.repaint();
  map.repaint();
  repaintBar();
});
start();
