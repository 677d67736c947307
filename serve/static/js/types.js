/**
 * The shapes of what goes between the page and the server (see /openapi.json), and between the page's parts.
 *
 * @typedef {{name: string, kind: string | null, probability: number | null, given: boolean}} HitTag
 *
 * @typedef {object} Hit
 * @property {number} rank
 * @property {string} id
 * @property {string | null} title
 * @property {string | null} artist
 * @property {string | null} album
 * @property {number | null} score null in a list that nothing was asked of
 * @property {HitTag[]} tags
 * @property {number | null} duration_seconds
 * @property {number | null} start_seconds
 * @property {number | null} end_seconds
 * @property {string | null} audio
 * @property {Record<string, unknown>} metadata
 *
 * @typedef {{space_id: string, milliseconds: number | null, hits: Hit[], next_offset: number | null, total?: number}} Answer
 *
 * @typedef {object} Info
 * @property {string} name
 * @property {string} version
 * @property {string} space_id
 * @property {number} dim
 * @property {number} tracks
 * @property {string} engine
 * @property {string} model
 * @property {boolean} moments
 * @property {boolean} audio
 * @property {{max_bytes: number, max_seconds: number, formats: string[]}} upload
 * @property {string[]} example_queries
 * @property {boolean} token_needed
 *
 * @typedef {{name: string, kind: "tags" | "text" | "number", values?: {value: string, count: number}[], min?: number, max?: number}} Facet
 * @typedef {{audio: string, name: string, duration_seconds: number, expires_seconds: number}} Upload
 * @typedef {{id: string, x: number, y: number, title: string | null, artist: string | null, tags: string[]}} Point
 * @typedef {{name: string, kind: string | null, tracks: number | null}} Tag
 *
 * @typedef {object} RequestOptions
 * @property {AbortSignal} [signal]
 * @property {(seconds: number) => void} [onWait] the server is busy; it is asked again after so long
 *
 * What is written of a track into a file; a point of the map has no score and no moment.
 * @typedef {object} Listed
 * @property {string} id
 * @property {string | null} [title]
 * @property {string | null} [artist]
 * @property {string | null} [album]
 * @property {number | null} [score]
 * @property {number | null} [start_seconds]
 * @property {number | null} [end_seconds]
 * @property {number | null} [duration_seconds]
 * @property {(string | HitTag)[]} [tags]
 *
 * What is played.
 * @typedef {object} Playable
 * @property {string} id
 * @property {string} title
 * @property {string} by
 * @property {number} start where the matching moment begins, in seconds
 * @property {number | null} end
 * @property {number | null} duration
 */

export {};
