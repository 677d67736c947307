/** What is served: the model and its space, what it may be asked, and the filters that its tracks allow. */

import { byId, el } from "./dom.js";
import { fieldName, plural } from "./format.js";
import { announce } from "./notices.js";

/** @typedef {import("./types.js").Info} Info @typedef {import("./types.js").Facet} Facet */

export class Served {
  /**
   * @param {import("./api.js").Api} api
   * @param {object} listeners
   * @param {(info: Info) => void} listeners.onInfo
   * @param {(facets: Facet[]) => void} listeners.onFacets
   * @param {() => void} listeners.onOther another catalogue has taken the place of the one before
   */
  constructor(api, listeners) {
    this.api = api;
    this.listeners = listeners;
    /** @type {Info | null} */
    this.info = null;
    /** @type {Facet[]} */
    this.facets = [];
  }

  /** @param {import("./types.js").RequestOptions} [options] */
  async load(options) {
    this.info = /** @type {Info} */ (await this.api.get("v1/info", {}, options));
    this.#show(this.info);
    this.listeners.onInfo(this.info);
    // Filters are an addition: the search neither waits for them nor fails without them.
    this.api.get("v1/facets").then(
      ({ fields }) => this.#setFacets(fields),
      () => this.#setFacets([]),
    );
  }

  /** Looks again when an answer is of another space: a model was swapped in. @param {string} spaceId */
  async check(spaceId) {
    if (!this.info || this.info.space_id === spaceId) return;
    this.info.space_id = spaceId; // asked once, whatever comes of it
    await this.load().catch(() => {});
    this.listeners.onOther();
    announce("The catalogue has been replaced by another one.");
  }

  /**
   * The key under which a filter finds a tag.
   * @param {string} name
   * @param {string | null} kind
   */
  fieldOfTag(name, kind) {
    const holds = this.facets.filter((facet) => facet.values?.some(({ value }) => value === name));
    return (holds.find((facet) => fieldName(facet.name) === kind) ?? holds[0])?.name ?? "tag";
  }

  /** @param {Facet[]} facets */
  #setFacets(facets) {
    this.facets = facets;
    this.listeners.onFacets(facets);
  }

  /** @param {Info} info */
  #show({ tracks, model, dim, engine, space_id: space }) {
    const hears = `The model that listens: ${model}, ${dim} dimensions, ${engine} index`;
    byId("model").replaceChildren(
      el("span", { text: plural(tracks, "track") }),
      el("span", { text: model, title: hears }),
      el("span", { text: `space ${space}`, title: "Vectors may be compared only with vectors of this space" }),
    );
  }
}
