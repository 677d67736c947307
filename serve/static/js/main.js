/** Puts the page together: each part does one thing, and what passes between them passes here. */

import { Answers } from "./answers.js";
import { Api } from "./api.js";
import { Chips } from "./chips.js";
import { byId } from "./dom.js";
import { asCsv, asM3u, save } from "./export.js";
import { Filters, withChoice } from "./filters.js";
import { MapView } from "./map.js";
import { Names } from "./names.js";
import { announce, failure, waiting } from "./notices.js";
import { Player } from "./player.js";
import { startPlayerBar } from "./player-bar.js";
import { allTerms, parseLine } from "./query.js";
import { Results } from "./results.js";
import { Served } from "./served.js";
import { MINUS_WEIGHT, MOST_TERMS, PAGE, Store, asks, blank, questionOf } from "./state.js";
import { Tags } from "./tags.js";
import { currentTheme, startTheme } from "./theme.js";
import { askToken } from "./token.js";
import { Uploads } from "./upload.js";
import { Waveforms } from "./waveform.js";

/** @typedef {import("./state.js").State} State @typedef {import("./state.js").Term} Term @typedef {import("./state.js").View} View */

/** @type {View[]} */
const VIEWS = ["search", "map", "tags"];

const store = new Store();
const api = new Api();
api.askToken = askToken;
const names = new Names(api);
const waveforms = new Waveforms(api);
const player = new Player(/** @type {HTMLAudioElement} */ (byId("audio")), api);
const text = /** @type {HTMLInputElement} */ (byId("text"));

const chips = new Chips({
  onChange: (place, changes, sliding) => {
    const terms = store.state.terms.map((term, at) => (at === place ? { ...term, ...changes } : term));
    store.change({ terms, shown: PAGE }, sliding ? "typing" : "step");
  },
  onRemove: (place) => store.change({ terms: store.state.terms.filter((_, at) => at !== place), shown: PAGE }),
  onLeft: () => text.focus(),
});
const filters = new Filters({ onChange: (changes) => store.change({ ...changes, shown: PAGE }) });
const results = new Results({
  player,
  waveforms,
  listeners: {
    onLike: (hit) => ask({ text: "", terms: [{ kind: "track", value: hit.id, weight: 1 }] }),
    onBlend: (hit) => addTerm({ kind: "track", value: hit.id, weight: 1 }),
    onLess: (hit) => addTerm({ kind: "track", value: hit.id, weight: MINUS_WEIGHT }),
    onTag: (name) => addTerm({ kind: "text", value: name, weight: 1 }),
  },
  onMore: () => answers.more(store.state),
});
const tags = new Tags(api, {
  onSearch: (name) => ask({ view: "search", text: name, terms: [] }),
  onOnly: ({ name, kind }) => {
    const field = served.fieldOfTag(name, kind);
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
    names.learn(points);
    // More of them would only blur what they have in common.
    const terms = points.slice(0, MOST_TERMS).map(({ id }) => ({ kind: /** @type {const} */ ("track"), value: id, weight: 1 }));
    ask({ view: "search", text: "", terms });
  },
});
const answers = new Answers({
  api,
  results,
  names,
  onChange: (changes, how) => store.change(changes, how),
  onHits: (hits) => map.setHits(hits),
  onSpace: (spaceId) => served.check(spaceId),
});
const uploads = new Uploads(api, ({ audio, name }) => addTerm({ kind: "sound", value: audio, label: name, weight: 1 }));
const served = new Served(api, {
  onInfo: (info) => {
    answers.searcher.moments = info.moments;
    uploads.limits = info.upload;
    results.welcome(info.example_queries, (example) => ask({ text: example }));
  },
  onFacets: (facets) => filters.setFacets(facets),
  onOther: () => {
    tags.reset();
    map.reset();
    if (store.state.view !== "search") show(store.state, null);
  },
});

/**
 * Another question, and eyes and ears go to its answer.
 * @param {Partial<State>} changes
 */
function ask(changes) {
  store.change({ ...changes, shown: PAGE });
  byId("results-title").focus({ preventScroll: true });
  scrollTo({ top: 0 });
}

/** @param {Term} term */
function addTerm(term) {
  const terms = store.state.terms.filter(({ kind, value }) => kind !== term.kind || value !== term.value);
  if (terms.length < MOST_TERMS) ask({ terms: [...terms, term] });
  else announce(`A search has at most ${MOST_TERMS} parts; remove one first.`);
}

/** Makes chips of what is in the box. @param {1 | -1} sign */
function keepWords(sign) {
  const less = (/** @type {Term} */ term) => ({ ...term, weight: term.weight > 0 ? MINUS_WEIGHT * term.weight : term.weight });
  const found = parseLine(text.value).map((term) => (sign < 0 ? less(term) : term));
  if (found.length) store.change({ text: "", terms: [...store.state.terms, ...found].slice(0, MOST_TERMS), shown: PAGE });
  text.focus();
}

/**
 * Brings the page to a state.
 * @param {State} state
 * @param {State | null} before null: show all of it
 */
function show(state, before) {
  if (text.value !== state.text) text.value = state.text;
  chips.show(names.of(state.terms));
  filters.show(state);
  if (state.view !== before?.view) showView(state.view);
  if (state.view === "map") map.open(state);
  if (state.view === "tags") tags.open();
  const asked = before === null || questionOf(state) !== questionOf(before);
  // Going back from "More tracks" is a shorter list of the same question.
  if (asked || state.shown < before.shown) answers.ask(state, { typing: before !== null && store.typing });
  document.title = asks(state) ? `${answers.words(state)} – xmodal` : "xmodal";
  names.lookUp(state.terms).then((more) => more && chips.show(names.of(store.state.terms)));
}

/** @param {View} view */
function showView(view) {
  for (const name of VIEWS) {
    byId(`view-${name}`).hidden = name !== view;
    if (name === view) byId(`tab-${name}`).setAttribute("aria-current", "page");
    else byId(`tab-${name}`).removeAttribute("aria-current");
  }
}

async function start() {
  const place = byId("notice");
  try {
    await served.load({ onWait: (seconds) => place.replaceChildren(waiting(seconds)) });
  } catch (error) {
    results.title("Not ready", "");
    place.replaceChildren(failure(/** @type {Error} */ (error), "The catalogue did not come", start));
    return;
  }
  place.replaceChildren();
  text.disabled = false;
  if (matchMedia("(pointer: fine)").matches) text.focus(); // a phone's keyboard would cover half of the page
  store.addEventListener("change", (event) => {
    const { before, state } = /** @type {CustomEvent<{before: State, state: State}>} */ (event).detail;
    show(state, before);
  });
  show(store.state, null);
}

// --- hands and keys ---------------------------------------------------------------------------------------------

text.addEventListener("input", () => store.change({ text: text.value, shown: PAGE }, "typing"));
text.addEventListener("change", () => store.endTyping());
byId("chips").addEventListener("change", () => store.endTyping());
byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  store.endTyping();
  // A line of several terms becomes chips, whose weights can then be seen and changed.
  if (allTerms(store.state).length > store.state.terms.length + 1) keepWords(1);
  else if (asks(store.state)) answers.ask(store.state);
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
for (const view of VIEWS) {
  byId(`tab-${view}`).addEventListener("click", (event) => {
    event.preventDefault();
    store.change({ view });
  });
}
byId("share").addEventListener("click", async () => {
  const button = byId("share");
  try {
    await navigator.clipboard.writeText(location.href);
    button.textContent = "Copied";
    announce("The link has been copied.");
  } catch {
    button.textContent = "Copy it from the address bar"; // without https browsers keep the clipboard to themselves
  }
  setTimeout(() => (button.textContent = "Copy link"), 2500);
});
const urlOf = (/** @type {string} */ id) => api.audioUrl(id);
byId("export-m3u").addEventListener("click", () => save("tracks.m3u8", "audio/x-mpegurl", asM3u(results.hits, urlOf)));
byId("export-csv").addEventListener("click", () => save("tracks.csv", "text/csv", asCsv(results.hits, urlOf)));
byId("map-m3u").addEventListener("click", () => save("selection.m3u8", "audio/x-mpegurl", asM3u(map.listed, urlOf)));
byId("map-csv").addEventListener("click", () => save("selection.csv", "text/csv", asCsv(map.listed, urlOf)));

const repaintBar = startPlayerBar(player, waveforms);
startTheme(() => {
  results.repaint();
  map.repaint();
  repaintBar();
});
start();
